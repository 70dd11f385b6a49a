"""`mlscale monitor`: its help. The entry point is in `entry`."""

from mlscale.commands.command import Command

COMMAND = Command(
    "compare production with the reference profile: drift, degradation, latency; one alert for each incident",
    "operate",
    (
        ("mlscale monitor resnet@champion", "one look at the last day; exit code 4 while alerting"),
        ("mlscale monitor resnet@champion alert.webhook=http://127.0.0.1:9000/", "and notify a webhook"),
        ("mlscale monitor resnet@champion watch=true every_s=60", "look each minute, until SIGTERM"),
        ("mlscale monitor resnet@champion events=predictions.csv mapping=mapping.yaml", "another server's log"),
        ("mlscale monitor resnet@champion page=monitor.html", "with plots, as a page"),
        (
            "mlscale monitor resnet@champion prometheus.rules=rules.yml prometheus.dashboard=dashboard.json",
            "for Prometheus and Grafana",
        ),
    ),
)
