"""The report on a model: fidelity, copies, redness and groups on one page, with a model card."""
