"""``dlx-deploy search``: many builds of one configuration, chosen by Optuna, weighed on the validation split."""
