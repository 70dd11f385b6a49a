"""Files that run `mlscale serve` elsewhere: on KServe, by systemd, in a container."""
