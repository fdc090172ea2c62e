"""How items stand in PolarDB's tables, and what a row's change means for one. Pure."""
