"""Checks whether a model trained on phantoms follows its labels and draws new faces; figures and sheets.

Usage:

    rosacea model check-phantoms models/mine --data train.zip --out docs/mine
"""
