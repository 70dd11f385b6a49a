"""What spreadsheets write into a CSV file in place of a value: in the language of the program, as the cell shows it."""

from __future__ import annotations

NOT_AVAILABLE = frozenset(
    {
        # #N/A of English, French, Spanish, Romanian, Chinese, Japanese, Korean is among the texts of pandas.
        *("#NV", "#N/D", "#N/D!", "#N/B", "#N/V", "#I/T", "#SAKNAS!", "#SAKNAS", "#PUUTTUU!", "#PUUTTUU"),
        *("#NENÍ_K_DISPOZICI", "#NEDOSTUPNÝ", "#HIÁNYZIK", "#YOK", "#Н/Д", "#Δ/Υ"),
    }
)
"""`#N/A`, by which a lookup or its author says that a value is missing: de, it/pt/hr, pl, nl, sl, da/no, sv, fi, cs,
sk, hu, tr, ru, el."""

ERROR_VALUES = frozenset(
    {
        # English, and what other languages share with it.
        *("#VALUE!", "#DIV/0!", "#REF!", "#NAME?", "#NUM!", "#NULL!", "#ERROR!", "#SPILL!", "#CALC!", "#FIELD!"),
        *("#BLOCKED!", "#CONNECT!", "#UNKNOWN!", "#BUSY!", "#EXTERNAL!", "#PYTHON!", "#TIMEOUT!", "#GETTING_DATA"),
        *("#WERT!", "#BEZUG!", "#ZAHL!", "#ÜBERLAUF!", "#KALK!", "#FELD!", "#FEHLER!"),  # German
        *("#VALEUR!", "#NOM?", "#NOMBRE!", "#NUL!", "#PROPAGATION!", "#CALCUL!", "#CHAMP!", "#ERREUR!"),  # French
        *("#¡VALOR!", "#¡DIV/0!", "#¡REF!", "#¿NOMBRE?", "#¡NUM!", "#¡NULO!", "#¡DESBORDAMIENTO!"),  # Spanish
        *("#VALORE!", "#RIF!", "#NOME?", "#NULLO!", "#ESPANSIONE!"),  # Italian
        *("#VALOR!", "#NÚM!", "#NULO!", "#DESPEJAR!", "#ERRO!"),  # Portuguese
        *("#WAARDE!", "#DEEL/0!", "#VERW!", "#NAAM?", "#GETAL!", "#LEEG!"),  # Dutch
        *("#ARG!", "#DZIEL/0!", "#ADR!", "#NAZWA?", "#LICZBA!", "#ZERO!"),  # Polish
        *("#VÄRDEFEL!", "#DIVISION/0!", "#REFERENS!", "#NAMN?", "#OGILTIGT!", "#SKÄRNING!"),  # Swedish
        *("#VÆRDI!", "#REFERENCE!", "#NAVN?", "#VERDI!"),  # Danish, Norwegian
        *("#ARVO!", "#JAKO/0!", "#VIITTAUS!", "#NIMI?", "#LUKU!", "#TYHJÄ!"),  # Finnish
        *("#HODNOTA!", "#DĚLENÍ_NULOU!", "#ODKAZ!", "#NÁZEV?", "#ČÍSLO!", "#DELENIENULOU!", "#NÁZOV?"),  # Czech, Slovak
        *("#ÉRTÉK!", "#ZÉRÓOSZTÓ!", "#HIV!", "#NÉV?", "#SZÁM!", "#NULLA!"),  # Hungarian
        *("#VREDN!", "#DEL/0!", "#SKLIC!", "#IME?", "#ŠTEV!"),  # Slovenian
        *("#VRIJEDNOST!", "#DIJ/0!", "#NAZIV?", "#BROJ!", "#VALOARE!", "#NUME?"),  # Croatian, Romanian
        *("#DEĞER!", "#SAYI/0!", "#BAŞV!", "#AD?", "#SAYI!", "#BOŞ!"),  # Turkish
        *("#ЗНАЧ!", "#ДЕЛ/0!", "#ССЫЛКА!", "#ИМЯ?", "#ЧИСЛО!", "#ПУСТО!"),  # Russian
        *("#ΤΙΜΗ!", "#ΔΙΑΙΡ./0!", "#ΑΝΑΦ!", "#ΟΝΟΜΑ?", "#ΑΡΙΘ!", "#ΚΕΝΟ!"),  # Greek
        *(f"{word}:{number}" for word in ("Err", "Fehler") for number in range(501, 541)),  # LibreOffice
    }
)
"""A formula that failed: what it would have computed is not known, and neither is it known to be missing."""


def describe_error_value(name: str, value: str) -> str:
    """Return the reason of a sample whose column `name` holds one of `ERROR_VALUES`."""
    return f"{name} is {value!r}, by which a spreadsheet marks a formula that failed"
