"""
Retrieval figures printed in the LexMotion paper, shown with ours as "paper, other data".

Source: Lyu et al., "Towards Unified Human Motion-Language Understanding via Sparse Interpretable Characterization",
ICLR 2025, Tables 1, 2 and 5 as on the authors' poster. They were measured on HumanML3D or KIT-ML with galleries of
different sizes and different rules for duplicate captions, so they are not comparable with our rows.
"""

from collections.abc import Mapping

SOURCE = "Lyu et al., ICLR 2025"
COLUMNS = tuple(
    f"{direction}/{name}" for direction in ("t2m", "m2t") for name in ("R1", "R2", "R3", "R5", "R10", "MedR")
)

# Row of ours -> R@1, 2, 3, 5, 10 and MedR, text to motion, then motion to text.
TABLE_1 = {  # HumanML3D
    "temos": (2.12, 4.09, 5.87, 8.26, 13.52, 173.0, 3.86, 4.54, 6.94, 9.38, 14.00, 183.25),
    "t2m": (1.80, 3.42, 4.79, 7.12, 12.47, 81.00, 2.92, 3.74, 6.00, 8.36, 12.95, 81.50),
    "tmr": (8.92, 12.04, 16.33, 22.06, 33.37, 25.00, 9.44, 11.84, 16.90, 22.92, 32.21, 26.00),
    "motion_patches": (10.80, 14.98, 20.00, 26.72, 38.02, 19.00, 11.25, 13.86, 19.98, 26.86, 37.40, 20.50),
    "tmr-lexicon": (7.83, 10.42, 15.04, 20.93, 31.94, 26.50, 8.68, 10.32, 15.68, 21.37, 30.91, 27.50),
    "motion_patches-lexicon": (9.13, 12.86, 16.78, 23.83, 34.71, 22.50, 10.03, 11.89, 17.13, 23.44, 33.38, 24.50),
    "lexmotion": (11.80, 17.11, 23.25, 30.81, 43.36, 14.00, 12.39, 15.55, 22.17, 29.25, 40.34, 17.00),
}
TABLE_2 = {  # KIT-ML
    "temos": (7.11, 13.25, 17.59, 24.10, 35.66, 24.00, 11.69, 15.30, 20.12, 26.63, 36.39, 26.50),
    "t2m": (3.37, 6.99, 10.84, 16.87, 27.71, 28.00, 4.94, 6.51, 10.72, 16.14, 25.30, 28.50),
    "tmr": (10.05, 13.87, 20.74, 30.03, 44.66, 14.00, 11.83, 13.74, 22.14, 29.39, 38.55, 16.00),
    "motion_patches": (14.02, 21.08, 28.91, 34.10, 50.00, 10.50, 13.61, 17.26, 27.54, 33.33, 44.77, 13.00),
    "tmr-lexicon": (9.87, 12.13, 19.64, 28.19, 42.16, 15.50, 10.62, 11.18, 20.07, 27.13, 36.51, 18.00),
    "motion_patches-lexicon": (10.82, 18.48, 26.38, 31.02, 46.51, 12.50, 11.53, 15.11, 24.92, 30.18, 40.52, 15.00),
    "lexmotion": (15.13, 23.74, 31.61, 36.81, 54.12, 8.00, 15.01, 19.47, 30.06, 35.63, 47.53, 10.50),
}
TABLE_5 = {  # HumanML3D, dense MotionPatches with this text encoder (parameters)
    "T5-Small (80M)": (4.40, 7.14, 10.02, 14.19, 21.25, 60.00, 5.66, 6.66, 9.88, 13.85, 19.79, 68.00),
    "T5-Base (250M)": (4.95, 7.62, 10.31, 14.81, 23.62, 46.00, 5.59, 6.98, 10.59, 14.49, 20.99, 54.00),
    "T5-Large (780M)": (5.82, 8.72, 11.66, 16.93, 26.27, 37.00, 6.69, 8.33, 12.16, 16.70, 23.53, 45.00),
    "T5-XL (3B)": (7.39, 11.00, 14.65, 20.65, 31.29, 28.00, 7.94, 10.06, 15.08, 19.88, 29.05, 33.00),
    "T5-XXL (11B)": (8.41, 12.82, 15.96, 23.67, 34.42, 24.00, 8.97, 11.49, 16.69, 22.63, 32.16, 28.00),
    "DistilBERT (66M)": (10.80, 14.98, 20.00, 26.72, 38.02, 19.00, 11.25, 13.86, 19.98, 26.86, 37.40, 20.50),
}


def figures(row: tuple[float, ...]) -> dict[str, float]:
    """Map columns to values, and add `Rsum`, the sum of the ten recalls, which the paper does not print."""
    values = dict(zip(COLUMNS, row, strict=True))
    return {**values, "Rsum": sum(value for name, value in values.items() if not name.endswith("MedR"))}


def table_of(layout: str) -> Mapping[str, tuple[float, ...]]:
    """Return Table 2 for the layout `kit-ml`, Table 1 for any other."""
    return TABLE_2 if layout == "kit-ml" else TABLE_1


def ratio(row: str, other: str, layout: str = "humanml3d") -> float:
    """Return the ratio of the Rsum of two rows in the table of this layout."""
    table = table_of(layout)
    return figures(table[row])["Rsum"] / figures(table[other])["Rsum"]
