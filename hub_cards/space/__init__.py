"""The demo as an application: runs with `lexmotion demo` and, unchanged, as a gradio Space of the Hub."""
