"""Texts and the relation between queries and labels: folder format, readers, generator."""

from alc_kernels.trainer.data.dataset import SPLITS, Catalogue, Dataset, Split
from alc_kernels.trainer.data.folder import load_dataset, save_dataset
from alc_kernels.trainer.data.generated import generate_catalogue
from alc_kernels.trainer.data.protocol import read_pricerunner
from alc_kernels.trainer.data.shapes import PairOptions, ProductTables, find_pairs, find_products
from alc_kernels.trainer.data.tables import TableOptions

__all__ = [
    "SPLITS",
    "Catalogue",
    "Dataset",
    "PairOptions",
    "ProductTables",
    "Split",
    "TableOptions",
    "find_pairs",
    "find_products",
    "generate_catalogue",
    "load_dataset",
    "read_pricerunner",
    "save_dataset",
]
