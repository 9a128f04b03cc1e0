"""Other software: adaptors for frameworks, MCP, the console in a browser, and files of other libraries."""
