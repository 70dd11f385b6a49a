"""Ask a server as clients would, with Locust, and hold what comes back against an objective.

Locust replaces parts of the standard library when it is imported: it runs in a process of its own, and nothing here but
`plan`, the file that it is given, imports it.
"""
