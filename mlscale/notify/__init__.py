"""Notifies people and machines: by a webhook, a command, a mail, or a service of apprise, each within a time limit."""
