"""Real database servers on loopback for the demo, the tests and the benchmarks; imports nothing of the product.

Start with :func:`whimbrel_testbed.mysql.mysql_server` and :func:`whimbrel_testbed.postgres.postgres_server`.
"""
