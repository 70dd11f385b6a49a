"""Load-tests a server with Locust, and compares the result with a service-level objective.

Locust patches the standard library when it is imported (gevent), so it runs in a process of its own, and only
`locust_plan`, its locustfile, imports it.
"""
