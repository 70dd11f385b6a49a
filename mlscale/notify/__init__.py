"""Telling people and machines that something happened: a webhook, a command, a mail. Each has an end in any case."""
