"""Figures of the book, one module per chapter family. Images are matplotlib, curves and scatter plots are plotly."""
