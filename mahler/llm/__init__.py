"""Whether a model's veto adds anything: what it is asked, what it answers, and how its answers are judged."""
