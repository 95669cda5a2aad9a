"""The metric's Space: a form that computes it."""

import evaluate
from evaluate.utils import launch_gradio_widget

launch_gradio_widget(evaluate.load("motion_retrieval.py"))
