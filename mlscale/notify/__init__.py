"""Notifies people and machines: by a webhook, a command, or a mail, each within a time limit."""
