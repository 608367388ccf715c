"""Self-supervised objectives beside a retrieval loss, for items known by categorical features.

Two families: contrast of two masked views with log-Q corrected batch softmax (Yao et al., arXiv
2007.12865), and decorrelation of two views with masked reconstruction (the objectives of Kolodner
et al., arXiv 2409.14682). Each is a term to add, times a weight, to the retrieval loss.
"""

from alc_kernels.selfsupervised.losses import (
    StreamingFrequency,
    cca_loss,
    count_probabilities,
    entropy,
    log_q_offset,
    masked_reconstruction_loss,
    mutual_information,
    view_contrastive_loss,
)
from alc_kernels.selfsupervised.masking import (
    apply_mask,
    correlated_mask,
    drop_features,
    random_mask,
)

__all__ = [
    "StreamingFrequency",
    "apply_mask",
    "cca_loss",
    "correlated_mask",
    "count_probabilities",
    "drop_features",
    "entropy",
    "log_q_offset",
    "masked_reconstruction_loss",
    "mutual_information",
    "random_mask",
    "view_contrastive_loss",
]
