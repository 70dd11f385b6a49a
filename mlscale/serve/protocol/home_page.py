"""The HTML page at /, for a person who opens the server's address in a browser."""

from __future__ import annotations

from html import escape

from mlscale.serve.served_model import ServedModel


def render_home_page(model: ServedModel) -> str:
    """Return a page that names the model and shows example requests."""
    # Names come from users, and go into HTML.
    input_port, version = model.servable.input, escape(model.version)
    shape = " × ".join(map(str, input_port.shape[1:]))
    links = (f"/v2/models/{model.name}", "/v2/health/ready", "/metrics")
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{version}</title>
<style>body{{font:16px/1.5 system-ui;max-width:44rem;margin:3rem auto;padding:0 1rem}}
pre{{background:#f3f3f3;padding:1rem}}</style>
<h1>{version}</h1>
<p>Takes {escape(input_port.dtype)} samples of {shape}, and predicts one of {len(model.servable.labels)} classes.</p>
<pre>curl --data-binary @samples.raw -H 'Content-Type: application/octet-stream' http://…/predict
curl -d '{{"inputs": [ … ]}}' http://…/predict
curl -H 'Content-Type: application/json' -d '[{{"id": " … ", "label": "{escape(model.servable.labels[0])}"}}]' http://…/labels</pre>
<ul>{"".join(f'<li><a href="{escape(link)}">{escape(link)}</a></li>' for link in links)}</ul>
</html>
"""
