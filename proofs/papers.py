"""Where the papers that statements cite can be read: by the words in which a source names them."""

PAPERS = {
    "Arora et al. 2024 (Based)": "https://arxiv.org/abs/2402.18668",
    "Ba et al. 2016": "https://arxiv.org/abs/1607.06450",
    "Behrouz et al. 2025 (MIRAS)": "https://arxiv.org/abs/2504.13173",
    "Behrouz et al. 2025 (Titans)": "https://arxiv.org/abs/2501.00663",
    "Choromanski et al. 2021 (FAVOR+)": "https://arxiv.org/abs/2009.14794",
    "Dao and Gu 2024 (Mamba-2)": "https://arxiv.org/abs/2405.21060",
    "Goel et al. 2022 (SaShiMi)": "https://arxiv.org/abs/2202.09729",
    "Gu and Dao 2023 (Mamba)": "https://arxiv.org/abs/2312.00752",
    "Gu et al. 2020 (HiPPO)": "https://arxiv.org/abs/2008.07669",
    "Gu et al. 2021 (LSSL)": "https://arxiv.org/abs/2110.13985",
    "Gu et al. 2022 (S4)": "https://arxiv.org/abs/2111.00396",
    "Gu et al. 2022 (S4D)": "https://arxiv.org/abs/2206.11893",
    "Hendrycks and Gimpel 2016": "https://arxiv.org/abs/1606.08415",
    "Hillis and Steele 1986": "https://doi.org/10.1145/7902.7903",
    "Katharopoulos et al. 2020": "https://arxiv.org/abs/2006.16236",
    "Liu et al. 2024 (Longhorn)": "https://arxiv.org/abs/2407.14207",
    "Peng et al. 2025 (RWKV-7)": "https://arxiv.org/abs/2503.14456",
    "Ramsauer et al. 2021": "https://arxiv.org/abs/2008.02217",
    "Schlag et al. 2021": "https://arxiv.org/abs/2102.11174",
    "Sukhbaatar et al. 2019": "https://arxiv.org/abs/1907.01470",
    "Sun et al. 2023 (RetNet)": "https://arxiv.org/abs/2307.08621",
    "Sun et al. 2024": "https://arxiv.org/abs/2407.04620",
    "Van Loan 1978": "https://doi.org/10.1109/TAC.1978.1101743",
    "Yang et al. 2024 (DeltaNet)": "https://arxiv.org/abs/2406.06484",
    "Yang et al. 2024 (GLA)": "https://arxiv.org/abs/2312.06635",
    "Yang et al. 2025": "https://arxiv.org/abs/2412.06464",
}


def cited(source: str) -> dict[str, str]:
    """Return the address of each paper that a source names, by its name."""
    return {name: address for name, address in PAPERS.items() if name in source}
