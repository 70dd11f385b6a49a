"""Files of tables to typed columns: encodings, dates, units and missing values."""
