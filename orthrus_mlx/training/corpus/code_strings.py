"""Kinds of functions about text."""

from __future__ import annotations

from orthrus_mlx.training.corpus.code_kind import kind
from orthrus_mlx.training.corpus.core import ints, pick

_TEXT = "text|s|word|string|line|phrase|value|name"
_LETTER = pick(tuple("abcdefghiklmnoprstuw"))

kind(
    "reverse_text reverse backwards flip_text", _TEXT,
    ["reverses a string", "returns a text backwards", "turns a string around",
     "gives back the characters of a text in reverse order"],
    "def $f($a):\n    return $a[::-1]",
    "The slice with step -1 walks through the text from the end to the start.",
    [["abc"], [""], ["level"]], lambda s: "".join(reversed(s)),
)  # fmt: skip
kind(
    "is_palindrome palindrome check_palindrome same_backwards", _TEXT,
    ["checks whether a word is a palindrome", "returns True if a text reads the same backwards",
     "tells if a string is a palindrome", "tests whether a text equals its reverse"],
    "def $f($a):\n    return $a == $a[::-1]",
    "The text is compared with its own reverse.",
    [["abc"], [""], ["level"]], lambda s: all(s[i] == s[-1 - i] for i in range(len(s))),
)  # fmt: skip
kind(
    "count_vowels vowels vowel_count number_of_vowels", _TEXT,
    ["counts the vowels in a text", "returns how many vowels a string has", "tells the number of vowels in a word",
     "finds out how many letters of a text are vowels"],
    'def $f($a):\n    return sum(1 for char in $a if char in "aeiou")',
    "Each character that is one of the five vowels adds 1 to the sum.",
    [["banana"], [""], ["rhythm"], ["apple pie"]], lambda s: sum(s.count(v) for v in "aeiou"),
)  # fmt: skip
kind(
    "count_letter letter_count how_often occurrences", _TEXT,
    ['counts how often the letter "$k" appears in a text', 'returns the number of times "$k" is in a string',
     'tells how many "$k" a word has', 'finds out how often the letter "$k" occurs in a text'],
    'def $f($a):\n    return $a.count("$k")',
    'The method count returns how often "$k" appears in $a.',
    [["banana split"], [""], ["a small tree house"]], lambda s, k: sum(c == k for c in s), k=_LETTER,
)  # fmt: skip
kind(
    "count_words word_count number_of_words words_in", "text|s|string|line|phrase|sentence",
    ["counts the words of a sentence", "returns how many words a text has", "tells the number of words in a string",
     "finds out how many words a line of text has"],
    "def $f($a):\n    return len($a.split())",
    "The method split cuts the text at its spaces, and len counts the parts.",
    [["one two three"], [""], ["a  b"]], lambda s: len([w for w in s.split(" ") if w]),
)  # fmt: skip
kind(
    "to_upper upper_case shout make_upper", _TEXT,
    ["turns a text into upper case", "returns a string in capital letters",
     "writes every letter of a text as a capital",
     "converts a word to upper case"],
    "def $f($a):\n    return $a.upper()",
    "The method upper returns the text in capital letters.",
    [["abc"], ["Hi there"], [""]], lambda s: s.upper(),
)  # fmt: skip
kind(
    "to_lower lower_case whisper make_lower", _TEXT,
    ["turns a text into lower case", "returns a string in small letters",
     "writes every letter of a text as a small letter",
     "converts a word to lower case"],
    "def $f($a):\n    return $a.lower()",
    "The method lower returns the text in small letters.",
    [["ABC"], ["Hi There"], [""]], lambda s: s.lower(),
)  # fmt: skip
kind(
    "first_letter first_char initial start_letter", _TEXT,
    ["returns the first letter of a word, or an empty string if there is none",
     "gives the first character of a text and an empty string for an empty text",
     "takes a text and returns its first character, if any", "finds the initial of a word, which may be empty"],
    "def $f($a):\n    return $a[:1]",
    "The slice holds the first character, and it is empty for an empty text.",
    [["abc"], [""], ["x"]], lambda s: s[0] if s else "",
)  # fmt: skip
kind(
    "first_chars head_of beginning prefix_of", _TEXT,
    ["returns the first $k characters of a text", "cuts a text after $k characters",
     "keeps only the first $k characters of a string",
     "gives back the beginning of a text, $k characters long"],
    "def $f($a):\n    return $a[:$k]",
    "The slice keeps the characters before position $k.",
    [["abcdefghijklmnopqrstuvwxyz"], [""], ["abc"]], lambda s, k: "".join(c for i, c in enumerate(s) if i < k),
    k=ints(2, 15),
)  # fmt: skip
kind(
    "last_chars tail_of ending suffix_of", _TEXT,
    ["returns the last $k characters of a text", "keeps only the last $k characters of a string",
     "gives back the end of a text, $k characters long", "takes the final $k characters of a string"],
    "def $f($a):\n    return $a[-$k:]",
    "The negative index counts $k characters from the end.",
    [["abcdefghijklmnopqrstuvwxyz"], [""], ["abcdefghijklmno"]],
    lambda s, k: "".join(c for i, c in enumerate(s) if i >= len(s) - k), k=ints(2, 15),
)  # fmt: skip
kind(
    "repeat_text repeat times_text copy_text", _TEXT,
    ["repeats a text $k times", "returns a string $k times in a row", "writes a word $k times without spaces",
     "makes $k copies of a text and joins them"],
    "def $f($a):\n    return $a * $k",
    "Multiplying a string by $k repeats it $k times.",
    [["ab"], [""], ["x"]], lambda s, k: "".join(s for _ in range(k)), k=ints(2, 20),
)  # fmt: skip
kind(
    "remove_spaces no_spaces strip_spaces without_spaces", _TEXT,
    ["removes all spaces from a text", "returns a string without its spaces", "deletes every space in a text",
     "takes the spaces out of a string"],
    'def $f($a):\n    return $a.replace(" ", "")',
    "Every space is replaced by an empty string.",
    [["a b c"], [""], ["  x "]], lambda s: "".join(c for c in s if c != " "),
)  # fmt: skip
kind(
    "replace_letter swap_letter change_letter exchange", _TEXT,
    ['replaces every "$k" in a text by "$m"', 'changes each letter "$k" of a string to "$m"',
     'returns a text in which "$k" is replaced by "$m"', 'puts "$m" in place of every "$k" in a word'],
    'def $f($a):\n    return $a.replace("$k", "$m")',
    'The method replace puts "$m" where "$k" was.',
    [["banana split"], [""], ["some trees"]], lambda s, k, m: "".join(m if c == k else c for c in s),
    k=_LETTER, m=pick(tuple("xyzvjq")),
)  # fmt: skip
kind(
    "remove_letter drop_letter without_letter delete_letter", _TEXT,
    ['removes every "$k" from a text', 'returns a string without the letter "$k"',
     'deletes the letter "$k" from a word',
     'takes all "$k" out of a text'],
    'def $f($a):\n    return $a.replace("$k", "")',
    'Every "$k" is replaced by an empty string.',
    [["banana split"], [""], ["some trees"]], lambda s, k: "".join(c for c in s if c != k), k=_LETTER,
)  # fmt: skip
kind(
    "starts_with_letter begins_with starts check_start", _TEXT,
    ['checks whether a text starts with "$k"', 'returns True if a word begins with "$k"',
     'tells if the first letter of a text is "$k"',
     'tests a string for "$k" at its start'],
    'def $f($a):\n    return $a.startswith("$k")',
    'The method startswith is true when the text begins with "$k".',
    [["banana"], [""], ["some"], ["tree"]], lambda s, k: s[:1] == k, k=_LETTER,
)  # fmt: skip
kind(
    "ends_with_letter ends finishes_with check_end", _TEXT,
    ['checks whether a text ends with "$k"', 'returns True if a word ends in "$k"',
     'tells if the last letter of a text is "$k"',
     'tests a string for "$k" at its end'],
    'def $f($a):\n    return $a.endswith("$k")',
    'The method endswith is true when the text ends with "$k".',
    [["banana"], [""], ["some"], ["boat"]], lambda s, k: s[-1:] == k, k=_LETTER,
)  # fmt: skip
kind(
    "contains_letter has_letter includes letter_inside", _TEXT,
    ['checks whether a text contains the letter "$k"', 'returns True if "$k" is in a word',
     'tells if a string has the letter "$k"',
     'tests a text for the letter "$k"'],
    'def $f($a):\n    return "$k" in $a',
    'The operator in is true when "$k" appears anywhere in the text.',
    [["banana"], [""], ["some"], ["boat"]], lambda s, k: s.count(k) > 0, k=_LETTER,
)  # fmt: skip
kind(
    "greet greeting say_hello hello", "name|person|who|user|guest|friend",
    ["returns the greeting $k with a name", "greets a person with $k and the name",
     "builds a greeting from the word $k and a name",
     "says $k to a person by name"],
    'def $f($a):\n    return f"$k, {$a}!"',
    "The f-string puts the name after the greeting.",
    [["Ann"], ["Bo"]], lambda name, k: k + ", " + name + "!",
    k=pick(("Hello", "Hi", "Welcome", "Dear", "Greetings", "Hey", "Ciao", "Salut", "Hola", "Bye", "Goodbye",
    "Thanks")),
)  # fmt: skip
kind(
    "full_name join_names whole_name name_of", "first last|first_name last_name|given family|a b|x y",
    ["joins a first and a last name with a space", "builds the full name from two parts",
     "takes first and last name and returns the full name", "puts a space between two names and joins them"],
    'def $f($a, $b):\n    return f"{$a} {$b}"',
    "The f-string puts one space between the two parts.",
    [["Ann", "Lee"], ["a", "b"]], lambda a, b: a + " " + b,
)  # fmt: skip
kind(
    "longer_text longer longest_of_two longer_word", "a b|x y|first second|left right|one two",
    ["returns the longer of two texts", "compares two strings and gives back the longer one",
     "finds the longer one of two words",
     "takes two strings and returns the one with more characters"],
    "def $f($a, $b):\n    if len($a) >= len($b):\n        return $a\n    return $b",
    "It compares the lengths and returns the longer text, or the first one if they are equal.",
    [["a", "bb"], ["ccc", "d"], ["e", "f"]], lambda a, b: b if len(b) > len(a) else a,
)  # fmt: skip
kind(
    "capitalize_words title_case capital_words big_initials", "text|s|string|line|phrase|sentence",
    ["capitalizes every word of a text", "writes each word with a capital letter",
     "returns a sentence in which all words start with a capital",
     "makes the first letter of every word a capital"],
    'def $f($a):\n    return " ".join(word.capitalize() for word in $a.split())',
    "The words are capitalized one by one and joined with spaces.",
    [["hello world"], [""], ["a b"]], lambda s: " ".join(w[0].upper() + w[1:] for w in s.split()),
)  # fmt: skip
kind(
    "reverse_words words_backwards swap_words turn_words", "text|s|string|line|phrase|sentence",
    ["reverses the order of the words in a sentence", "returns the words of a text in reverse order",
     "puts the last word first and the first word last", "turns the order of words in a string around"],
    'def $f($a):\n    return " ".join(reversed($a.split()))',
    "The text is split into words, which are joined in reverse order.",
    [["one two three"], [""], ["a"]], lambda s: " ".join(s.split()[::-1]),
)  # fmt: skip
kind(
    "longest_word find_longest longest biggest_word", "text|s|string|line|phrase|sentence",
    ["finds the longest word of a sentence", "returns the longest word in a text",
     "looks for the word with the most letters",
     "gives back the longest word of a string"],
    "def $f($a):\n    return max($a.split(), key=len)",
    "The function max compares the words by their length.",
    [["one three two"], ["a"], ["to be here"]], lambda s: sorted(s.split(), key=len)[-1],
)  # fmt: skip
kind(
    "acronym initials short_form first_letters", "text|s|string|line|phrase|sentence",
    ["builds an acronym from the first letters of the words", "returns the capital initials of all words",
     "makes a short form from the first letter of each word", "joins the first letters of the words as capitals"],
    'def $f($a):\n    return "".join(word[0].upper() for word in $a.split())',
    "The first letter of each word is made a capital, and all of them are joined.",
    [["very good idea"], [""], ["a b"]], lambda s: "".join(w[0] for w in s.split()).upper(),
)  # fmt: skip
kind(
    "caesar shift_text encode cipher", _TEXT,
    ["shifts every small letter of a text by $k places in the alphabet",
     "encodes a lower-case word with a Caesar shift of $k",
     "moves each letter $k places on, starting again after z",
     "applies a Caesar cipher with the key $k to small letters"],
    'def $f($a):\n    result = ""\n    for char in $a:\n'
    '        result += chr((ord(char) - 97 + $k) % 26 + 97)\n    return result',
    "Each letter is turned into a number from 0 to 25, moved by $k and turned back.",
    [["abc"], ["xyz"], [""]],
    lambda s, k: "".join("abcdefghijklmnopqrstuvwxyz"[("abcdefghijklmnopqrstuvwxyz".index(c) + k) % 26] for c in s),
    k=ints(1, 25),
)  # fmt: skip
kind(
    "pad_left pad_text fill_left right_align", _TEXT,
    ["fills a text with spaces on the left to a width of $k", "pads a string on the left until it has $k characters",
     "aligns a text to the right in $k columns", "adds spaces before a text until it is $k characters long"],
    "def $f($a):\n    return $a.rjust($k)",
    "The method rjust adds spaces on the left until the width is $k.",
    [["abc"], [""], ["abcdefghijklmnopqrstuvwxyz"]], lambda s, k: " " * (k - len(s)) + s, k=ints(4, 40),
)  # fmt: skip
kind(
    "is_long too_long long_text length_check", _TEXT,
    ["checks whether a text has more than $k characters", "returns True if a string is longer than $k",
     "tells if a word has more than $k letters", "tests that the length of a text is above $k"],
    "def $f($a):\n    return len($a) > $k",
    "The length of the text is compared with $k.",
    [["abcdefghijklmnop"], [""], ["abc"]], lambda s, k: sum(1 for _ in s) > k, k=ints(2, 40),
)  # fmt: skip
kind(
    "is_digits only_digits all_digits numeric", _TEXT,
    ["checks whether a text has only digits", "returns True if every character of a string is a digit",
     "tells if a text is made of digits only", "tests a string for being a whole number without a sign"],
    "def $f($a):\n    return $a.isdigit()",
    "The method isdigit is true when the text is not empty and every character is a digit.",
    [["123"], ["12a"], [""]], lambda s: bool(s) and all(c in "0123456789" for c in s),
)  # fmt: skip
