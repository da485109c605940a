"""Writes descriptors.json: what descriptors of a few texts and vectors are, by
Python's own Unicode tables and NumPy.  python3 descriptors.py > descriptors.json"""
import json
import unicodedata

import numpy as np

TEXTS = [
    "", "   ", "The driver was LATE and the car was dirty", "OK", "ok!!! 5 of 5", "don't_stop e-mail: a@b.example",
    "Straße und Übermut ÄÖÜ", "Ужасно, ОЧЕНЬ долго", "Η υπηρεσία ήταν καλή", "とてもよかった です", "很好的服务 很快",
    "서비스가 좋았어요", "خدمة ممتازة", "שירות טוב", "सेवा अच्छी थी", "บริการดี", "mixed Привет hello мир и ещё", "12345 -- 67",
    "ᚠᚢᚦ", "cafe\u0301 na\u0308ive", "emoji 🙂 here", "a\nb\tc",
]
KNOWN = ["the", "was", "and", "ok", "5", "und", "очень", "a", "late"]
SCRIPTS = {"LATIN": "Latin", "CYRILLIC": "Cyrillic", "GREEK": "Greek", "ARABIC": "Arabic", "HEBREW": "Hebrew", "DEVANAGARI": "Devanagari",
           "THAI": "Thai", "HANGUL": "Hangul", "HIRAGANA": "Kana", "KATAKANA": "Kana", "CJK": "Han"}


def words(text):
    out, word = [], ""
    for c in text + " ":
        if unicodedata.category(c)[0] in "LNM" or c == "_":
            word += c
        elif word:
            out.append(word)
            word = ""
    return out


def script(text):
    counts = {}
    for c in text:
        name = SCRIPTS.get(unicodedata.name(c, "?").split()[0]) if unicodedata.category(c)[0] == "L" else None
        if name:
            counts[name] = counts.get(name, 0) + 1
    if counts:
        return max(counts, key=lambda n: counts[n])
    return "other" if any(unicodedata.category(c)[0] == "L" for c in text) else "none"


def text_row(text):
    letters = [c for c in text if unicodedata.category(c)[0] == "L"]
    found = words(text)
    return {"text": text, "length": len(text), "words": len(found), "script": script(text),
            "upper": sum(unicodedata.category(c) == "Lu" for c in letters) / max(len(letters), 1),
            "unknown": sum(w.lower() not in KNOWN for w in found) / max(len(found), 1)}


rng = np.random.default_rng(7)
vectors = rng.normal(0.5, 1, (40, 8)).round(3)
centre = vectors.mean(axis=0)


def vector_row(v):
    cosine = 1 - v @ centre / np.linalg.norm(v) / np.linalg.norm(centre)
    return {"vector": v.tolist(), "length": len(v), "norm": float(np.linalg.norm(v)), "cosine_distance": float(cosine)}


print(json.dumps({"known": KNOWN, "texts": [text_row(t) for t in TEXTS], "centre": centre.tolist(), "vectors": [vector_row(v) for v in vectors]},
                 ensure_ascii=False, indent=1))
