"""What the server lets be seen: metrics, logs with request ids, traces where they are asked for.

``watcher`` is what the fleet tells, ``metrics`` counts it, ``entry`` is what is known of one
request, ``requests`` gives each an id, a line in the log and a count, ``logs`` writes the lines,
``tracing`` is OpenTelemetry. Prompts, answers and secrets appear in none of them.
"""
