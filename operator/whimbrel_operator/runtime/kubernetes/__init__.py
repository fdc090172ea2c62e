"""The runtime port on a cluster: tasks are Jobs, reports and orders WorkerReports. What a Job holds stands in specs."""
