"""Tables as people have them: text, Parquet, JSON Lines, spreadsheets and data frames."""

from alc_kernels.trainer.data.tables.opening import is_table, open_table
from alc_kernels.trainer.data.tables.table import Changes, Table, TableOptions, normalize_text

__all__ = ["Changes", "Table", "TableOptions", "is_table", "normalize_text", "open_table"]
