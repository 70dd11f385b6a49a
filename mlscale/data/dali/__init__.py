"""Images decoded and augmented by NVIDIA DALI, in mlscale's order and with mlscale's random numbers."""
