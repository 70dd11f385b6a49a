"""Names as users type them: how far two are apart, the nearest, those of other programs, those of later versions."""
