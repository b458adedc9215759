"""Does a model that was trained on phantoms draw what its label asks, and faces of its own? Figures and sheets.

Usage:

    rosacea model check-phantoms models/mine --data train.zip --out docs/mine
"""
