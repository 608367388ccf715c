"""Measuring the losses side by side with what else computes them: ``alc bench``."""
