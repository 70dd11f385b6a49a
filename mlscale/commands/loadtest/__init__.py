"""`mlscale loadtest`: its help. The entry point is in `entry`."""

from mlscale.commands.command import Command

COMMAND = Command(
    "send load to a server with Locust, and compare latency, failures and throughput with an objective",
    "operate",
    (
        (
            "mlscale loadtest http://127.0.0.1:8000 slo.p99_ms=50",
            "eight clients for ten seconds; exit code 4 when missed",
        ),
        (
            "mlscale loadtest http://127.0.0.1:8000 rate=200 users=32",
            "200 requests a second, whether or not answers come",
        ),
        (
            "mlscale loadtest http://127.0.0.1:8000 samples=penguins.csv",
            "rows of a table; also a folder of images, a text file, or a servable",
        ),
    ),
)
