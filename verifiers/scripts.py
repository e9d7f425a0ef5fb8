"""Which scripts a language is written in, for every language that py3langid knows."""

from collections.abc import Mapping

_LATIN = """
    ace af an az bcl br bs ca crh cs cy da de en eo es et ext eu fi fo fr fuv fy ga gcf gcr gd gl gug guw ha hr ht hu id
    ig is it jv kab kik ku la lb lg lij ln lt ltg lv mg ms mt nl nn no nso oc om pcm pl pt qu ro rw se sk sl sn so sq st
    sv sw tk tl tr uz uzs vec vi vo wa xh yo zu sr
"""
_OTHERS = {
    "Arabic": "ar ary arz fa ps sdh ug ur",
    "Cyrillic": "ba be bg kk ky mk mn ru sr tg tt uk",
    "Devanagari": "hi mr ne sa gom",
    "Han": "zh wuu yue ja ko",
    "Hiragana": "ja",
    "Katakana": "ja",
    "Hangul": "ko",
    "Greek": "el grc",
    "Hebrew": "he hbo",
    "Bengali": "bn as",
    "Gurmukhi": "pa",
    "Gujarati": "gu",
    "Oriya": "or",
    "Tamil": "ta",
    "Telugu": "te",
    "Kannada": "kn",
    "Malayalam": "ml",
    "Sinhala": "si",
    "Thai": "th",
    "Lao": "lo",
    "Myanmar": "my",
    "Khmer": "km",
    "Georgian": "ka",
    "Armenian": "hy",
    "Ethiopic": "am",
    "Tibetan": "dz",
}


def _table() -> Mapping[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for script, languages in {"Latin": _LATIN, **_OTHERS}.items():
        for language in languages.split():
            found[language] = (*found.get(language, ()), script)
    return dict(sorted(found.items()))


WRITTEN_IN: Mapping[str, tuple[str, ...]] = _table()
"""Language code -> Unicode scripts. What Korean writes in Han, and Serbian in Latin letters, is theirs too."""
