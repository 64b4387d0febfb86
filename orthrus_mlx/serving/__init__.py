"""The HTTP server: OpenAI's and Anthropic's protocols over one engine (docs/serving.md).

A request goes through `app`, its protocol's bodies and `plan`, `service` (prompt, sampling, grammar), `engine`
(events), `answer` (text, thoughts, tool calls) and back through `run` to its protocol's reply.
"""
