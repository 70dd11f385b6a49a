"""Tables whose rows are images: paths or bytes with labels, in CSV, JSON Lines, Parquet and Arrow files."""
