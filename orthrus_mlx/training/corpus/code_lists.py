"""Kinds of functions about lists and dictionaries."""

from __future__ import annotations

from orthrus_mlx.training.corpus.code_kind import kind
from orthrus_mlx.training.corpus.core import ints

_LIST = "numbers|values|items|data|nums|xs|list_of_numbers|entries"
_ANY = "items|values|data|things|xs|elements|entries"
_TWO = "first second|a b|x y|left right|one two"

kind(
    "sum_list total add_all sum_of", _LIST,
    ["adds all numbers of a list", "returns the sum of a list of numbers", "computes the total of a list with a loop",
     "sums up every number in a list"],
    "def $f($a):\n    total = 0\n    for item in $a:\n        total += item\n    return total",
    "The loop adds each number to total, which starts at 0.",
    [[[1, 2, 3]], [[]], [[-1, 5]]], sum,
)  # fmt: skip
kind(
    "product_list multiply_all product_of total_product", _LIST,
    ["multiplies all numbers of a list", "returns the product of a list of numbers",
     "computes the product of a list with a loop",
     "multiplies every number in a list together"],
    "def $f($a):\n    result = 1\n    for item in $a:\n        result *= item\n    return result",
    "The loop multiplies result, which starts at 1, by each number.",
    [[[1, 2, 3]], [[]], [[-1, 5]]], lambda xs: 1 if not xs else xs[0] * xs[1] * (xs[2] if len(xs) > 2 else 1),
)  # fmt: skip
kind(
    "average mean average_of mean_value", _LIST,
    ["computes the average of a list and returns 0 for an empty list",
     "returns the mean of a list, or 0 if it is empty",
     "finds the average of the numbers in a list, with 0 for no numbers",
     "calculates the mean value of a list and gives 0 when it is empty"],
    "def $f($a):\n    if not $a:\n        return 0\n    return sum($a) / len($a)",
    "The sum is divided by the number of entries, and an empty list gives 0.",
    [[[1, 2, 3]], [[]], [[4, 5]]], lambda xs: sum(xs) / len(xs) if xs else 0,
)  # fmt: skip
kind(
    "largest find_max biggest maximum_of", _LIST,
    ["finds the largest number in a list", "returns the maximum of a list with a loop",
     "looks for the biggest entry of a list",
     "gives back the largest value of a list without using max"],
    "def $f($a):\n    best = $a[0]\n    for item in $a:\n        if item > best:\n            best = item\n"
    "    return best",
    "The loop keeps the largest number it has seen so far in best.",
    [[[1, 7, 3]], [[5]], [[-1, -5]]], max,
)  # fmt: skip
kind(
    "smallest find_min least minimum_of", _LIST,
    ["finds the smallest number in a list", "returns the minimum of a list with a loop",
     "looks for the smallest entry of a list",
     "gives back the smallest value of a list without using min"],
    "def $f($a):\n    best = $a[0]\n    for item in $a:\n        if item < best:\n            best = item\n"
    "    return best",
    "The loop keeps the smallest number it has seen so far in best.",
    [[[1, 7, 3]], [[5]], [[-1, -5]]], min,
)  # fmt: skip
kind(
    "even_numbers only_even filter_even keep_even", _LIST,
    ["keeps only the even numbers of a list", "returns a list of the even numbers",
     "filters the even numbers from a list",
     "removes all odd numbers from a list"],
    "def $f($a):\n    return [item for item in $a if item % 2 == 0]",
    "The list comprehension keeps the numbers without a remainder after division by 2.",
    [[[1, 2, 3, 4]], [[]], [[5, 7]]], lambda xs: [x for x in xs if x in (2, 4)],
)  # fmt: skip
kind(
    "odd_numbers only_odd filter_odd keep_odd", _LIST,
    ["keeps only the odd numbers of a list", "returns a list of the odd numbers",
     "filters the odd numbers from a list",
     "removes all even numbers from a list"],
    "def $f($a):\n    return [item for item in $a if item % 2 == 1]",
    "The list comprehension keeps the numbers with a remainder of 1 after division by 2.",
    [[[1, 2, 3, 4]], [[]], [[6, 8]]], lambda xs: [x for x in xs if x in (1, 3)],
)  # fmt: skip
kind(
    "above larger_than keep_above over_limit", _LIST,
    ["keeps the numbers of a list that are larger than $k", "returns all entries above $k",
     "filters a list for numbers greater than $k",
     "removes every number from a list that is not above $k"],
    "def $f($a):\n    return [item for item in $a if item > $k]",
    "The list comprehension keeps the numbers that are larger than $k.",
    [[[1, 20, 33, 99]], [[]], [[5, 50]]], lambda xs, k: [x for x in xs if not x <= k], k=ints(2, 98),
)  # fmt: skip
kind(
    "below smaller_than keep_below under_limit", _LIST,
    ["keeps the numbers of a list that are smaller than $k", "returns all entries below $k",
     "filters a list for numbers less than $k",
     "removes every number from a list that is not below $k"],
    "def $f($a):\n    return [item for item in $a if item < $k]",
    "The list comprehension keeps the numbers that are smaller than $k.",
    [[[1, 20, 33, 99]], [[]], [[5, 50]]], lambda xs, k: [x for x in xs if not x >= k], k=ints(2, 98),
)  # fmt: skip
kind(
    "count_above how_many_above count_larger number_above", _LIST,
    ["counts the numbers of a list that are larger than $k", "returns how many entries are above $k",
     "tells how many numbers in a list are greater than $k", "finds out how many values of a list exceed $k"],
    "def $f($a):\n    return sum(1 for item in $a if item > $k)",
    "Each number that is larger than $k adds 1 to the sum.",
    [[[1, 20, 33, 99]], [[]], [[5, 50]]], lambda xs, k: len([x for x in xs if x > k]), k=ints(2, 98),
)  # fmt: skip
kind(
    "count_value count_of occurrences_of how_many", _LIST,
    ["counts how often $k is in a list", "returns the number of times $k appears in a list",
     "tells how many entries of a list equal $k",
     "finds out how often the value $k occurs in a list"],
    "def $f($a):\n    return $a.count($k)",
    "The method count returns how many entries are equal to $k.",
    [[[1, 2, 2, 3, 5, 7]], [[]], [[4, 4, 8, 9]]], lambda xs, k: sum(x == k for x in xs), k=ints(2, 30),
)  # fmt: skip
kind(
    "contains has_value includes_value is_inside", _LIST,
    ["checks whether a list contains $k", "returns True if $k is in a list",
     "tells if the value $k is part of a list",
     "tests a list for the number $k"],
    "def $f($a):\n    return $k in $a",
    "The operator in is true when some entry is equal to $k.",
    [[[1, 2, 2, 3, 5, 7]], [[]], [[4, 4, 8, 9]]], lambda xs, k: xs.count(k) > 0, k=ints(2, 30),
)  # fmt: skip
kind(
    "squares square_all squared_list list_squares", _LIST,
    ["squares every number of a list", "returns a list of the squares",
     "makes a new list in which each number is squared",
     "computes the square of each entry of a list"],
    "def $f($a):\n    return [item * item for item in $a]",
    "The list comprehension multiplies each number by itself.",
    [[[1, 2, 3]], [[]], [[-4]]], lambda xs: [x**2 for x in xs],
)  # fmt: skip
kind(
    "scale_list multiply_list times_list scaled_list", _LIST,
    ["multiplies every number of a list by $k", "returns a list with each number times $k",
     "scales all entries of a list by the factor $k",
     "makes a new list in which each number is multiplied by $k"],
    "def $f($a):\n    return [item * $k for item in $a]",
    "The list comprehension multiplies each number by $k.",
    [[[1, 2, 3]], [[]], [[-4]]], lambda xs, k: [k * x for x in xs], k=ints(2, 99),
)  # fmt: skip
kind(
    "shift_list add_to_all increase_all raised_list", _LIST,
    ["adds $k to every number of a list", "returns a list with each number increased by $k",
     "raises all entries of a list by $k",
     "makes a new list in which $k is added to each number"],
    "def $f($a):\n    return [item + $k for item in $a]",
    "The list comprehension adds $k to each number.",
    [[[1, 2, 3]], [[]], [[-4]]], lambda xs, k: [k + x for x in xs], k=ints(2, 99),
)  # fmt: skip
kind(
    "reverse_list reversed_items flip_list list_backwards", _ANY,
    ["reverses a list", "returns a list in reverse order", "turns the order of a list around",
     "gives back the entries of a list from last to first"],
    "def $f($a):\n    return $a[::-1]",
    "The slice with step -1 walks through the list from the end to the start.",
    [[[1, 2, 3]], [[]], [["a", "b"]]], lambda xs: list(reversed(xs)),
)  # fmt: skip
kind(
    "sort_list sorted_copy order_list ascending", _LIST,
    ["returns a sorted copy of a list", "sorts a list from small to large",
     "puts the numbers of a list in rising order",
     "gives back the entries of a list in ascending order"],
    "def $f($a):\n    return sorted($a)",
    "The built-in function sorted returns a new list in rising order.",
    [[[3, 1, 2]], [[]], [[5, -5]]], lambda xs: sorted(xs, key=lambda x: x),
)  # fmt: skip
kind(
    "sort_descending sorted_down order_down descending", _LIST,
    ["returns a copy of a list sorted from large to small", "sorts a list in falling order",
     "puts the numbers of a list in descending order",
     "gives back the entries of a list from the largest to the smallest"],
    "def $f($a):\n    return sorted($a, reverse=True)",
    "The option reverse=True makes sorted start with the largest number.",
    [[[3, 1, 2]], [[]], [[5, -5]]], lambda xs: sorted(xs)[::-1],
)  # fmt: skip
kind(
    "unique remove_duplicates no_repeats distinct", _ANY,
    ["removes duplicates from a list and keeps the order",
     "returns every entry of a list only once, in the first order",
     "drops repeated entries of a list without changing the order", "makes a list of the different entries in order"],
    "def $f($a):\n    result = []\n    for item in $a:\n        if item not in result:\n"
    "            result.append(item)\n    return result",
    "An entry is only added when it is not in the result yet.",
    [[[1, 2, 1, 3]], [[]], [["a", "a"]]], lambda xs: list(dict.fromkeys(xs)),
)  # fmt: skip
kind(
    "has_duplicates repeats any_twice contains_repeats", _ANY,
    ["checks whether a list has duplicates", "returns True if some entry of a list appears twice",
     "tells if a list has repeated entries",
     "tests a list for values that occur more than once"],
    "def $f($a):\n    return len(set($a)) < len($a)",
    "A set keeps each entry once, so it is smaller than the list when something repeats.",
    [[[1, 2, 1, 3]], [[]], [["a", "b"]]], lambda xs: any(xs.count(x) > 1 for x in xs),
)  # fmt: skip
kind(
    "first_items take_first head_of_list start_of_list", _ANY,
    ["returns the first $k entries of a list", "takes the first $k elements from a list",
     "keeps only the first $k entries of a list",
     "gives back the start of a list, $k entries long"],
    "def $f($a):\n    return $a[:$k]",
    "The slice keeps the entries before position $k.",
    [[[1, 2, 3, 4, 5, 6]], [[]], [["a"]]], lambda xs, k: [x for i, x in enumerate(xs) if i < k], k=ints(2, 25),
)  # fmt: skip
kind(
    "last_items take_last tail_of_list end_of_list", _ANY,
    ["returns the last $k entries of a list", "takes the last $k elements from a list",
     "keeps only the last $k entries of a list",
     "gives back the end of a list, $k entries long"],
    "def $f($a):\n    return $a[-$k:]",
    "The negative index counts $k entries from the end.",
    [[[1, 2, 3, 4, 5, 6]], [[]], [["a"]]], lambda xs, k: [x for i, x in enumerate(xs) if i >= len(xs) - k], k=ints(2,
    25),
)  # fmt: skip
kind(
    "every_nth every_step take_every skip_items", _ANY,
    ["returns every entry of a list at a distance of $k, starting with the first",
     "takes every $k-th entry, beginning with the first one",
     "steps through a list by $k and collects the entries from the start",
     "keeps the entries of a list at the positions 0, $k and so on"],
    "def $f($a):\n    return $a[::$k]",
    "The slice starts with the first entry and moves on by $k.",
    [[[1, 2, 3, 4, 5, 6, 7]], [[]], [["a", "b"]]], lambda xs, k: [x for i, x in enumerate(xs) if i % k == 0],
    k=ints(2, 12),
)  # fmt: skip
kind(
    "chunks split_list groups_of pieces", _ANY,
    ["splits a list into parts of $k entries", "cuts a list into chunks of size $k",
     "groups the entries of a list by $k",
     "returns a list of lists with $k entries each"],
    "def $f($a):\n    return [$a[i:i + $k] for i in range(0, len($a), $k)]",
    "The loop starts a new part at every position that is a multiple of $k.",
    [[[1, 2, 3, 4, 5]], [[]], [["a"]]],
    lambda xs, k: [[x for j, x in enumerate(xs) if j // k == g] for g in range((len(xs) + k - 1) // k)],
    k=ints(2, 12),
)  # fmt: skip
kind(
    "merge_lists join_lists concatenate both_lists", _TWO,
    ["joins two lists", "returns one list with the entries of two lists", "puts the second list behind the first",
     "takes two lists and concatenates them"],
    "def $f($a, $b):\n    return $a + $b",
    "The plus sign puts the entries of $b behind those of $a.",
    [[[1], [2, 3]], [[], []], [["a"], []]], lambda a, b: [*a, *b],
)  # fmt: skip
kind(
    "common_items shared_items in_both intersection", _TWO,
    ["finds the entries that two lists share", "returns the common elements of two lists",
     "keeps the entries of the first list that are also in the second", "collects what is in both lists"],
    "def $f($a, $b):\n    return [item for item in $a if item in $b]",
    "The list comprehension keeps each entry of $a that $b has too.",
    [[[1, 2], [2, 3]], [[], []], [["a"], ["b"]]], lambda a, b: list(filter(b.__contains__, a)),
)  # fmt: skip
kind(
    "missing_items only_in_first without_second difference_list", _TWO,
    ["finds the entries of the first list that are not in the second",
     "returns what the first list has and the second has not",
     "removes from the first list all entries of the second",
     "collects the entries of one list that another list lacks"],
    "def $f($a, $b):\n    return [item for item in $a if item not in $b]",
    "The list comprehension keeps each entry of $a that $b does not have.",
    [[[1, 2], [2, 3]], [[], []], [["a"], ["b"]]], lambda a, b: [x for x in a if not b.count(x)],
)  # fmt: skip
kind(
    "add_pairs add_lists sum_pairs elementwise_sum", _TWO,
    ["adds two lists entry by entry", "returns a list of the sums of two lists' entries",
     "adds the numbers at the same places of two lists",
     "takes two lists and adds them pair by pair"],
    "def $f($a, $b):\n    return [x + y for x, y in zip($a, $b)]",
    "The function zip walks through both lists at once, and each pair is added.",
    [[[1, 2], [3, 4]], [[], []], [[5], [6]]], lambda a, b: [a[i] + b[i] for i in range(len(a))],
)  # fmt: skip
kind(
    "dot_product dot scalar_product sum_of_products", _TWO,
    ["computes the dot product of two lists", "returns the sum of the products of two lists' entries",
     "multiplies two lists entry by entry and adds the products", "calculates the scalar product of two vectors"],
    "def $f($a, $b):\n    return sum(x * y for x, y in zip($a, $b))",
    "Each pair of entries is multiplied, and sum adds the products.",
    [[[1, 2], [3, 4]], [[], []], [[5], [6]]], lambda a, b: sum(a[i] * b[i] for i in range(len(a))),
)  # fmt: skip
kind(
    "running_total cumulative partial_sums totals_so_far", _LIST,
    ["returns the running totals of a list", "computes the cumulative sums of a list",
     "makes a list of all partial sums",
     "adds up a list and keeps every intermediate sum"],
    "def $f($a):\n    result = []\n    total = 0\n    for item in $a:\n        total += item\n"
    "        result.append(total)\n    return result",
    "The loop adds each number to total and stores total after every step.",
    [[[1, 2, 3]], [[]], [[5]]], lambda xs: [sum(xs[: i + 1]) for i in range(len(xs))],
)  # fmt: skip
kind(
    "count_items frequencies tally count_each", _ANY,
    ["counts how often each entry of a list appears", "returns a dictionary with the number of each entry",
     "makes a tally of the entries of a list",
     "builds a dictionary from entries to their counts"],
    "def $f($a):\n    counts = {}\n    for item in $a:\n        counts[item] = counts.get(item, 0) + 1\n"
    "    return counts",
    "The dictionary starts empty, and each entry raises its own count by 1.",
    [[["a", "b", "a"]], [[]], [["x"]]], lambda xs: {x: xs.count(x) for x in xs},
)  # fmt: skip
kind(
    "word_lengths lengths length_of_words measure_words", "words|texts|items|names|values|strings",
    ["returns the lengths of the words in a list", "makes a list of how long each word is",
     "computes the length of every text in a list",
     "measures all words of a list"],
    "def $f($a):\n    return [len(word) for word in $a]",
    "The list comprehension takes the length of each word.",
    [[["a", "bb"]], [[]], [["xyz"]]], lambda xs: list(map(len, xs)),
)  # fmt: skip
kind(
    "long_words words_longer keep_long only_long", "words|texts|items|names|values|strings",
    ["keeps the words of a list that have more than $k letters", "returns all words longer than $k letters",
     "filters a list of words for those with more than $k letters", "removes every word with $k letters or fewer"],
    "def $f($a):\n    return [word for word in $a if len(word) > $k]",
    "The list comprehension keeps the words whose length is above $k.",
    [[["a", "bb", "elephant", "tree"]], [[]], [["window", "doorstep"]]], lambda xs,
    k: [x for x in xs if len(x) >= k + 1], k=ints(2, 30),
)  # fmt: skip
kind(
    "join_words join_with connect_words make_line", "words|texts|items|names|values|strings",
    ["joins the words of a list with commas", "returns one text with the words separated by a comma and a space",
     "makes a line of text from a list of words with commas", "connects all words of a list by commas"],
    'def $f($a):\n    return ", ".join($a)',
    "The method join puts a comma and a space between the words.",
    [[["a", "b"]], [[]], [["x"]]], lambda xs: "".join((", " if i else "") + x for i, x in enumerate(xs)),
)  # fmt: skip
kind(
    "first_or_default first_item get_first start_or_default", _ANY,
    ["returns the first entry of a list, or $k if the list is empty",
     "gives the first element and $k for an empty list",
     "takes the first entry of a list with $k as the default",
     "finds the first entry of a list and falls back to $k"],
    "def $f($a):\n    if not $a:\n        return $k\n    return $a[0]",
    "An empty list gives $k, any other list gives its first entry.",
    [[[5, 6]], [[]], [["x"]]], lambda xs, k: next(iter(xs), k), k=ints(0, 99),
)  # fmt: skip
kind(
    "last_or_default last_item get_last end_or_default", _ANY,
    ["returns the last entry of a list, or $k if the list is empty",
     "gives the last element and $k for an empty list",
     "takes the last entry of a list with $k as the default", "finds the last entry of a list and falls back to $k"],
    "def $f($a):\n    if not $a:\n        return $k\n    return $a[-1]",
    "An empty list gives $k, any other list gives its last entry.",
    [[[5, 6]], [[]], [["x"]]], lambda xs, k: next(reversed(xs), k), k=ints(0, 99),
)  # fmt: skip
kind(
    "index_of find_index position_of where_is", _LIST,
    ["returns the position of $k in a list, or -1 if it is missing",
     "finds the index of $k and gives -1 when it is not there",
     "tells where $k is in a list, with -1 for not found", "looks for $k in a list and returns its index or -1"],
    "def $f($a):\n    for index, item in enumerate($a):\n        if item == $k:\n            return index\n"
    "    return -1",
    "The loop returns the first index whose entry is $k, and -1 follows when there is none.",
    [[[9, 2, 3, 5, 7]], [[]], [[4, 8, 12, 20]]], lambda xs, k: xs.index(k) if k in xs else -1, k=ints(2, 30),
)  # fmt: skip
kind(
    "flatten flat_list one_list unpack_lists", "lists|groups|rows|parts|nested|matrix",
    ["flattens a list of lists", "makes one list from a list of lists", "joins all inner lists to a single list",
     "takes nested lists and returns their entries in one list"],
    "def $f($a):\n    return [item for part in $a for item in part]",
    "The comprehension walks through each inner list and collects its entries.",
    [[[[1], [2, 3]]], [[]], [[["a"]]]], lambda xs: [x for inner in xs for x in inner],
)  # fmt: skip
kind(
    "transpose turn_matrix swap_rows columns", "matrix|rows|table|grid|m|data",
    ["transposes a matrix", "swaps the rows and columns of a table", "turns rows into columns",
     "returns the columns of a matrix as a list of lists"],
    "def $f($a):\n    return [list(column) for column in zip(*$a)]",
    "The function zip collects the entries at the same place of all rows.",
    [[[[1, 2], [3, 4]]], [[]], [[[5, 6]]]], lambda m: [[row[i] for row in m] for i in range(len(m[0]))] if m else [],
)  # fmt: skip
kind(
    "all_positive only_positive check_positive every_positive", _LIST,
    ["checks whether all numbers of a list are positive", "returns True if every number in a list is above zero",
     "tells if a list has only positive numbers", "tests that no number of a list is zero or negative"],
    "def $f($a):\n    return all(item > 0 for item in $a)",
    "The function all is true when the condition holds for every number.",
    [[[1, 2]], [[]], [[0, 3]], [[-1]]], lambda xs: not [x for x in xs if x <= 0],
)  # fmt: skip
kind(
    "any_negative has_negative negative_inside check_negative", _LIST,
    ["checks whether a list has a negative number", "returns True if some number in a list is below zero",
     "tells if a list contains a negative number",
     "tests whether any number of a list is negative"],
    "def $f($a):\n    return any(item < 0 for item in $a)",
    "The function any is true when the condition holds for at least one number.",
    [[[1, 2]], [[]], [[0, 3]], [[-1]]], lambda xs: min(xs, default=0) < 0,
)  # fmt: skip
kind(
    "is_sorted in_order ordered check_order", _LIST,
    ["checks whether a list is sorted", "returns True if the numbers of a list never fall",
     "tells if a list is in rising order",
     "tests a list for being in ascending order"],
    "def $f($a):\n    return $a == sorted($a)",
    "The list is compared with its own sorted copy.",
    [[[1, 2]], [[]], [[3, 0]]], lambda xs: all(xs[i] <= xs[i + 1] for i in range(len(xs) - 1)),
)  # fmt: skip
kind(
    "second_largest runner_up second_best next_to_max", _LIST,
    ["finds the second largest number of a list", "returns the second largest different value in a list",
     "looks for the runner-up among the numbers of a list",
     "gives back the largest number below the maximum of a list"],
    "def $f($a):\n    return sorted(set($a))[-2]",
    "The set removes repeats, and the sorted list has the second largest number at position -2.",
    [[[1, 7, 3]], [[5, 5, 2]], [[-1, -5]]], lambda xs: max(x for x in xs if x != max(xs)),
)  # fmt: skip
kind(
    "value_range spread max_minus_min span", _LIST,
    ["returns the difference between the largest and the smallest number of a list",
     "computes the range of a list of numbers",
     "subtracts the smallest number of a list from the largest",
     "calculates how far apart the extremes of a list are"],
    "def $f($a):\n    return max($a) - min($a)",
    "It subtracts the smallest number from the largest one.",
    [[[1, 7, 3]], [[5]], [[-1, -5]]], lambda xs: sorted(xs)[-1] - sorted(xs)[0],
)  # fmt: skip
kind(
    "rotate rotate_left move_around shift_left", _ANY,
    ["rotates a list to the left by $k places", "moves the first $k entries of a list to its end",
     "returns a list that starts $k entries later and wraps around",
     "puts the first $k entries of a list behind the others"],
    "def $f($a):\n    return $a[$k:] + $a[:$k]",
    "The list is cut after $k entries, and the two parts change places.",
    [[list(range(30))], [[]]], lambda xs, k: [xs[(i + k) % len(xs)] for i in range(len(xs))] if xs else [], k=ints(1,
    25),
)  # fmt: skip
kind(
    "swap_dict invert flip_dict keys_and_values", "data|mapping|table|d|pairs|items",
    ["swaps the keys and values of a dictionary", "inverts a dictionary", "returns a dictionary from values to keys",
     "turns each value of a dictionary into a key"],
    "def $f($a):\n    return {value: key for key, value in $a.items()}",
    "Each pair of the dictionary is stored the other way around.",
    [[{"a": "x", "b": "y"}], [{}]], lambda d: dict(zip(d.values(), d.keys(), strict=True)),
)  # fmt: skip
kind(
    "sum_values total_values add_values dict_total", "data|mapping|table|d|prices|scores",
    ["adds all values of a dictionary", "returns the sum of the values in a dictionary",
     "computes the total of a dictionary's values",
     "sums up what the keys of a dictionary point to"],
    "def $f($a):\n    return sum($a.values())",
    "The method values gives all values, and sum adds them.",
    [[{"a": 1, "b": 2}], [{}]], lambda d: sum(d[key] for key in d),
)  # fmt: skip
kind(
    "best_key key_of_max winner top_key", "scores|data|mapping|d|points|votes",
    ["returns the key with the largest value of a dictionary", "finds the key that has the highest value",
     "tells the winner in a dictionary of scores",
     "looks for the key whose value is the largest"],
    "def $f($a):\n    return max($a, key=$a.get)",
    "The function max compares the keys by the values they point to.",
    [[{"a": 1, "b": 2}], [{"x": 3}]], lambda d: next(k for k, v in d.items() if v == max(d.values())),
)  # fmt: skip
kind(
    "lookup get_value find_value value_or_default", "data key|mapping name|table word|d k|prices item",
    ["looks up a key in a dictionary and returns $k if it is missing",
     "returns the value of a key, or $k when the key does not exist",
     "reads a dictionary entry with the default $k", "finds the value for a key and falls back to $k"],
    "def $f($a, $b):\n    return $a.get($b, $k)",
    "The method get returns the value of $b, or $k if there is none.",
    [[{"a": 1}, "a"], [{}, "b"]], lambda d, key, k: {**{key: k}, **d}[key], k=ints(0, 99),
)  # fmt: skip
kind(
    "keep_expensive entries_from filter_dict at_least", "prices|data|mapping|table|scores|points",
    ["keeps the entries of a dictionary whose value is at least $k",
     "returns a dictionary without the values below $k",
     "filters a dictionary for values of $k or more", "removes all entries of a dictionary with a value under $k"],
    "def $f($a):\n    return {key: value for key, value in $a.items() if value >= $k}",
    "The comprehension keeps the pairs whose value is at least $k.",
    [[{"a": 1, "b": 50, "c": 99}], [{}]], lambda d, k: {n: d[n] for n in d if not d[n] < k}, k=ints(2, 98),
)  # fmt: skip
