"""Copies tables by chunks: planning, claiming, reading ahead and writing. Types and encodings stand in values."""
