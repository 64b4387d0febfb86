"""Kinds of functions about numbers."""

from __future__ import annotations

import math

from orthrus_mlx.training.corpus.code_kind import kind
from orthrus_mlx.training.corpus.core import ints

_ONE = "n|number|value|x|num|k|m|count"
_TWO = "a b|x y|first second|left right|m n|p q|one two"

kind(
    "is_even even check_even even_number", _ONE,
    ["checks whether a number is even", "returns True if a number is even", "tells if a number is even",
     "tests a number for being even", "returns whether an integer can be divided by two"],
    "def $f($a):\n    return $a % 2 == 0",
    "The remainder of $a divided by 2 is 0 exactly when $a is even.",
    [[2], [7], [0], [-3]], lambda n: n % 2 == 0,
)  # fmt: skip
kind(
    "is_odd odd check_odd odd_number", _ONE,
    ["checks whether a number is odd", "returns True if a number is odd", "tells if a number is odd",
     "tests a number for being odd", "returns whether an integer cannot be divided by two"],
    "def $f($a):\n    return $a % 2 == 1",
    "The remainder of $a divided by 2 is 1 exactly when $a is odd.",
    [[2], [7], [0], [-3]], lambda n: n % 2 == 1,
)  # fmt: skip
kind(
    "is_multiple divisible multiple_check can_divide", _ONE,
    ["checks whether a number is a multiple of $k", "returns True if a number is divisible by $k",
     "tells if a number can be divided by $k", "tests if $k divides a number"],
    "def $f($a):\n    return $a % $k == 0",
    "The number is a multiple of $k when the remainder of the division by $k is 0.",
    [[12], [35], [0], [90], [77]], lambda n, k: n % k == 0, k=ints(3, 25),
)  # fmt: skip
kind(
    "add sum_two plus add_numbers", _TWO,
    ["adds two numbers", "returns the sum of two numbers", "takes two numbers and adds them",
     "computes the sum of its two arguments"],
    "def $f($a, $b):\n    return $a + $b",
    "It returns the sum of $a and $b.",
    [[1, 2], [-4, 9], [0, 0]], lambda a, b: a + b,
)  # fmt: skip
kind(
    "subtract minus difference sub_numbers", _TWO,
    ["subtracts the second number from the first", "returns the first number minus the second",
     "takes two numbers and subtracts the second one", "computes the first argument minus the second argument"],
    "def $f($a, $b):\n    return $a - $b",
    "It returns $a minus $b.",
    [[1, 2], [-4, 9], [8, 3]], lambda a, b: a - b,
)  # fmt: skip
kind(
    "multiply product times mul_numbers", _TWO,
    ["multiplies two numbers", "returns the product of two numbers", "takes two numbers and multiplies them",
     "computes the product of its two arguments"],
    "def $f($a, $b):\n    return $a * $b",
    "It returns the product of $a and $b.",
    [[1, 2], [-4, 9], [7, 0]], lambda a, b: a * b,
)  # fmt: skip
kind(
    "safe_divide divide division quotient", _TWO,
    ["divides two numbers and returns None for a division by zero",
     "returns the first number divided by the second, or None if the second is zero",
     "divides safely and gives None when the divisor is zero",
     "computes a quotient and returns None if it would divide by zero"],
    "def $f($a, $b):\n    if $b == 0:\n        return None\n    return $a / $b",
    "It returns None when $b is zero and the quotient otherwise.",
    [[6, 3], [1, 0], [7, 2]], lambda a, b: None if b == 0 else a / b,
)  # fmt: skip
kind(
    "add_constant increase shift add_fixed", _ONE,
    ["adds $k to a number", "returns a number plus $k", "increases a number by $k",
     "takes a number and adds $k to it"],
    "def $f($a):\n    return $a + $k",
    "It adds $k to $a and returns the result.",
    [[1], [0], [-50]], lambda n, k: n + k, k=ints(2, 99),
)  # fmt: skip
kind(
    "scale multiply_by times_constant scaled", _ONE,
    ["multiplies a number by $k", "returns a number times $k", "scales a number by the factor $k",
     "takes a number and multiplies it by $k"],
    "def $f($a):\n    return $a * $k",
    "It multiplies $a by $k and returns the result.",
    [[1], [0], [-5]], lambda n, k: n * k, k=ints(3, 99),
)  # fmt: skip
kind(
    "square squared power_two squaring", _ONE,
    ["returns the square of a number", "squares a number", "multiplies a number by itself",
     "computes the second power of a number"],
    "def $f($a):\n    return $a * $a",
    "It multiplies $a by itself.",
    [[3], [0], [-5]], lambda n: n * n,
)  # fmt: skip
kind(
    "cube cubed power_three third_power", _ONE,
    ["returns the cube of a number", "cubes a number", "computes the third power of a number",
     "raises a number to the power of three"],
    "def $f($a):\n    return $a ** 3",
    "It raises $a to the power of 3.",
    [[3], [0], [-5]], lambda n: n**3,
)  # fmt: skip
kind(
    "absolute abs_value distance_from_zero positive", _ONE,
    ["returns the absolute value of a number", "returns a number without its sign",
     "computes the distance of a number from zero", "makes a negative number positive and keeps other numbers"],
    "def $f($a):\n    if $a < 0:\n        return -$a\n    return $a",
    "A negative number is negated, any other number is returned as it is.",
    [[3], [0], [-5]], abs,
)  # fmt: skip
kind(
    "sign signum sign_of number_sign", _ONE,
    ["returns the sign of a number as 1, 0 or -1",
     "gives 1 for positive numbers, -1 for negative ones and 0 for zero",
     "tells the sign of a number with 1, 0 or -1", "computes the sign of a number as -1, 0 or 1"],
    "def $f($a):\n    if $a > 0:\n        return 1\n    if $a < 0:\n        return -1\n    return 0",
    "It returns 1 for positive numbers, -1 for negative numbers and 0 for zero.",
    [[3], [0], [-5]], lambda n: (n > 0) - (n < 0),
)  # fmt: skip
kind(
    "maximum larger bigger max_of_two", _TWO,
    ["returns the larger of two numbers", "finds the maximum of two numbers",
     "gives back the bigger one of two numbers",
     "compares two numbers and returns the larger one"],
    "def $f($a, $b):\n    if $a > $b:\n        return $a\n    return $b",
    "It compares the two numbers and returns the larger one.",
    [[1, 2], [9, -4], [3, 3]], max,
)  # fmt: skip
kind(
    "minimum smaller lesser min_of_two", _TWO,
    ["returns the smaller of two numbers", "finds the minimum of two numbers",
     "gives back the smaller one of two numbers", "compares two numbers and returns the smaller one"],
    "def $f($a, $b):\n    if $a < $b:\n        return $a\n    return $b",
    "It compares the two numbers and returns the smaller one.",
    [[1, 2], [9, -4], [3, 3]], min,
)  # fmt: skip
kind(
    "max_of_three largest_of_three biggest_three top_of_three", "a b c|x y z|first second third|p q r",
    ["returns the largest of three numbers", "finds the maximum of three numbers",
     "gives back the biggest one of three numbers", "compares three numbers and returns the largest"],
    "def $f($a, $b, $c):\n    return max($a, $b, $c)",
    "The built-in function max returns the largest of its arguments.",
    [[1, 2, 3], [9, -4, 2], [3, 7, 3]], max,
)  # fmt: skip
kind(
    "average_two mean_two middle midpoint", _TWO,
    ["returns the average of two numbers", "computes the mean of two numbers",
     "finds the number halfway between two numbers",
     "calculates the midpoint of two numbers"],
    "def $f($a, $b):\n    return ($a + $b) / 2",
    "It adds $a and $b and divides the sum by 2.",
    [[1, 2], [9, -4], [3, 3]], lambda a, b: (a + b) / 2,
)  # fmt: skip
kind(
    "rectangle_area area rect_area area_of_rectangle", "length width|a b|x y|w h|width height|side_a side_b",
    ["computes the area of a rectangle", "returns the area of a rectangle from its two sides",
     "calculates how large a rectangle is", "takes the two sides of a rectangle and returns its area"],
    "def $f($a, $b):\n    return $a * $b",
    "The area of a rectangle is the product of its sides $a and $b.",
    [[12, 7], [1, 1], [0, 5]], lambda a, b: a * b,
)  # fmt: skip
kind(
    "rectangle_perimeter perimeter rect_perimeter way_around", "length width|a b|x y|w h|width height|side_a side_b",
    ["computes the perimeter of a rectangle", "returns the perimeter of a rectangle from its two sides",
     "calculates how long the border of a rectangle is",
     "takes the two sides of a rectangle and returns its perimeter"],
    "def $f($a, $b):\n    return 2 * ($a + $b)",
    "The perimeter of a rectangle is twice the sum of its sides $a and $b.",
    [[12, 7], [1, 1], [0, 5]], lambda a, b: 2 * (a + b),
)  # fmt: skip
kind(
    "triangle_area area_of_triangle tri_area half_base_height", "base height|b h|x y|width height|a h",
    ["computes the area of a triangle from base and height", "returns the area of a triangle",
     "takes the base and the height of a triangle and returns its area",
     "calculates how large a triangle with a given base and height is"],
    "def $f($a, $b):\n    return $a * $b / 2",
    "The area of a triangle is its base times its height, divided by 2.",
    [[12, 7], [1, 1], [0, 5]], lambda a, b: a * b / 2,
)  # fmt: skip
kind(
    "factorial fact factorial_of n_factorial", _ONE,
    ["computes the factorial of a number", "returns the factorial of a number",
     "multiplies all whole numbers from 1 up to a number", "calculates n factorial with a loop"],
    "def $f($a):\n    result = 1\n    for i in range(2, $a + 1):\n        result *= i\n    return result",
    "The loop multiplies result by every number from 2 up to $a.",
    [[0], [1], [5], [7]], math.factorial,
)  # fmt: skip
kind(
    "fibonacci fib nth_fibonacci fib_number", _ONE,
    ["returns the Fibonacci number at a given index", "computes a Fibonacci number with a loop",
     "calculates the n-th Fibonacci number, starting with 0 and 1",
     "takes an index and returns that number of the Fibonacci sequence"],
    "def $f($a):\n    a, b = 0, 1\n    for _ in range($a):\n        a, b = b, a + b\n    return a",
    "The two variables always hold neighbours of the Fibonacci sequence and move on by one in each step.",
    [[0], [1], [2], [10]], lambda n: [0, 1, 1, 2, 3, 5, 8, 13, 21, 34, 55][n],
)  # fmt: skip
kind(
    "sum_to sum_up_to total_to sum_first", _ONE,
    ["adds all whole numbers from 1 to a given number", "returns the sum of the numbers from 1 up to a limit",
     "computes 1 + 2 + ... up to a number", "sums up all integers from 1 to its argument"],
    "def $f($a):\n    return sum(range(1, $a + 1))",
    "The range holds all numbers from 1 to $a, and sum adds them.",
    [[0], [1], [10]], lambda n: n * (n + 1) // 2,
)  # fmt: skip
kind(
    "sum_multiples multiples_sum total_of_multiples add_multiples", _ONE,
    ["adds all multiples of $k below a limit",
     "returns the sum of the multiples of $k that are smaller than a number",
     "sums up every number below a limit that is divisible by $k",
     "computes the total of all multiples of $k under a limit"],
    "def $f($a):\n    return sum(range($k, $a, $k))",
    "The range runs through the multiples of $k below $a, and sum adds them.",
    [[10], [50], [3]], lambda n, k: sum(i for i in range(1, n) if i % k == 0), k=ints(3, 12),
)  # fmt: skip
kind(
    "is_prime prime check_prime prime_number", _ONE,
    ["checks whether a number is prime", "returns True if a number is a prime number", "tells if a number is prime",
     "tests a number for being prime"],
    "def $f($a):\n    if $a < 2:\n        return False\n    for i in range(2, $a):\n        if $a % i == 0:\n"
    "            return False\n    return True",
    "A prime number is at least 2 and no smaller number from 2 on divides it.",
    [[0], [1], [2], [9], [13], [21]], lambda n: n in (2, 3, 5, 7, 11, 13, 17, 19),
)  # fmt: skip
kind(
    "gcd greatest_common_divisor common_divisor gcd_of", _TWO,
    ["computes the greatest common divisor of two numbers", "returns the gcd of two numbers",
     "finds the largest number that divides both arguments",
     "uses the method of Euclid to find the gcd of two numbers"],
    "def $f($a, $b):\n    while $b:\n        $a, $b = $b, $a % $b\n    return $a",
    "Euclid's method replaces the pair by the second number and the remainder until the remainder is 0.",
    [[12, 18], [7, 5], [10, 0], [9, 27]], math.gcd,
)  # fmt: skip
kind(
    "divisors factors all_divisors list_divisors", _ONE,
    ["lists all divisors of a number", "returns a list of the divisors of a number",
     "finds every number that divides a number",
     "collects all factors of a number in a list"],
    "def $f($a):\n    return [i for i in range(1, $a + 1) if $a % i == 0]",
    "The list keeps each number from 1 to $a that divides $a without a remainder.",
    [[1], [12], [13]], lambda n: [i for i in range(1, n + 1) if n % i == 0],
)  # fmt: skip
kind(
    "digit_sum sum_digits digits_total add_digits", _ONE,
    ["adds the digits of a number", "returns the sum of the digits of a number", "computes the digit sum of a number",
     "sums up all digits of an integer"],
    "def $f($a):\n    return sum(int(digit) for digit in str($a))",
    "The number is turned into text, and each character is added as a digit.",
    [[0], [123], [909]], lambda n: sum(map(int, str(n))),
)  # fmt: skip
kind(
    "count_digits digit_count number_length digits_in", _ONE,
    ["counts the digits of a number", "returns how many digits a number has",
     "tells the number of digits of a positive integer",
     "finds out how many digits an integer has"],
    "def $f($a):\n    return len(str($a))",
    "The number is turned into text, and len counts its characters.",
    [[0], [123], [9090]], lambda n: len(str(n)),
)  # fmt: skip
kind(
    "clamp limit_range keep_between bounded", _ONE,
    ["limits a number to the range from $k to $m", "clamps a number between $k and $m",
     "keeps a number at least $k and at most $m", "forces a number into the range $k to $m"],
    "def $f($a):\n    return max($k, min($m, $a))",
    "Numbers below $k become $k, numbers above $m become $m, and all others stay the same.",
    [[-500], [20], [500]], lambda n, k, m: k if n < k else m if n > m else n, k=ints(0, 15), m=ints(20, 200),
)  # fmt: skip
kind(
    "in_range between is_between inside", _ONE,
    ["checks whether a number lies between $k and $m", "returns True if a number is at least $k and at most $m",
     "tells if a number is in the range from $k to $m", "tests that a number is not below $k and not above $m"],
    "def $f($a):\n    return $k <= $a <= $m",
    "The chained comparison is true when $a is at least $k and at most $m.",
    [[-500], [17], [500]], lambda n, k, m: k <= n <= m, k=ints(0, 15), m=ints(20, 200),
)  # fmt: skip
kind(
    "celsius_to_fahrenheit to_fahrenheit c_to_f fahrenheit", "celsius|c|degrees|temperature|t|temp",
    ["converts Celsius to Fahrenheit", "turns a temperature in Celsius into Fahrenheit",
     "takes degrees Celsius and returns degrees Fahrenheit",
     "computes the Fahrenheit value of a Celsius temperature"],
    "def $f($a):\n    return $a * 9 / 5 + 32",
    "The formula is Celsius times 9 / 5 plus 32.",
    [[0], [100], [-40]], lambda c: c * 9 / 5 + 32,
)  # fmt: skip
kind(
    "fahrenheit_to_celsius to_celsius f_to_c celsius", "fahrenheit|f_degrees|degrees|temperature|t|temp",
    ["converts Fahrenheit to Celsius", "turns a temperature in Fahrenheit into Celsius",
     "takes degrees Fahrenheit and returns degrees Celsius",
     "computes the Celsius value of a Fahrenheit temperature"],
    "def $f($a):\n    return ($a - 32) * 5 / 9",
    "The formula is Fahrenheit minus 32, times 5 / 9.",
    [[32], [212], [-40]], lambda f: (f - 32) * 5 / 9,
)  # fmt: skip
kind(
    "to_minutes hours_to_minutes minutes_from total_minutes", "hours minutes|h m|x y|hour minute",
    ["converts hours and minutes to minutes", "returns the total minutes of some hours and minutes",
     "takes hours and minutes and gives the time in minutes",
     "computes how many minutes a time of hours and minutes is"],
    "def $f($a, $b):\n    return $a * 60 + $b",
    "Each hour has 60 minutes, and the remaining minutes are added.",
    [[0, 5], [2, 30], [1, 0]], lambda h, m: h * 60 + m,
)  # fmt: skip
kind(
    "is_leap_year leap_year leap check_leap", "year|y|n|value|number",
    ["checks whether a year is a leap year", "returns True for leap years", "tells if a year has 366 days",
     "tests if a given year is a leap year"],
    "def $f($a):\n    return $a % 4 == 0 and ($a % 100 != 0 or $a % 400 == 0)",
    "A leap year can be divided by 4, but a full century only counts when it can be divided by 400.",
    [[2000], [1900], [2024], [2023]], lambda y: y in (2000, 2024),
)  # fmt: skip
kind(
    "discount reduced_price price_after sale_price", "price|amount|cost|p|total|value",
    ["takes $k percent off a price", "returns a price after a discount of $k percent",
     "reduces a price by $k percent",
     "computes the price that is left after a discount of $k percent"],
    "def $f($a):\n    return $a * (100 - $k) / 100",
    "The price is multiplied by the percentage that is left after taking off $k percent.",
    [[100], [60], [0]], lambda p, k: p * (100 - k) / 100, k=ints(5, 75),
)  # fmt: skip
kind(
    "add_tax with_tax gross_price price_with_tax", "price|amount|cost|p|total|value",
    ["adds $k percent tax to a price", "returns a price including a tax of $k percent",
     "raises a price by a tax of $k percent",
     "computes the price with $k percent tax"],
    "def $f($a):\n    return $a * (100 + $k) / 100",
    "The price is multiplied by 100 percent plus the tax of $k percent.",
    [[100], [60], [0]], lambda p, k: p * (100 + k) / 100, k=ints(2, 30),
)  # fmt: skip
kind(
    "countdown count_down_list down_from falling", _ONE,
    ["returns a list that counts down from a number to 1", "makes a countdown list from a number to 1",
     "lists the numbers from a given number down to 1", "builds a list of whole numbers falling to 1"],
    "def $f($a):\n    return list(range($a, 0, -1))",
    "The range starts at $a and goes down by 1 until it reaches 1.",
    [[0], [1], [5]], lambda n: [n - i for i in range(n)],
)  # fmt: skip
kind(
    "multiples first_multiples table times_table", _ONE,
    ["lists the first $k multiples of a number", "returns the first $k multiples of a number in a list",
     "makes a times table with $k entries for a number", "collects the first $k multiples of a number"],
    "def $f($a):\n    return [$a * i for i in range(1, $k + 1)]",
    "The list holds $a times every number from 1 to $k.",
    [[3], [0], [7]], lambda n, k: [n * i for i in range(1, k + 1)], k=ints(3, 25),
)  # fmt: skip
kind(
    "fizz fizz_word fizz_check fizz_or_number", _ONE,
    ['returns "fizz" for multiples of $k and the number itself otherwise',
     'gives "fizz" if a number is divisible by $k and else the number',
     'replaces a number by "fizz" when $k divides it',
     'turns multiples of $k into the word "fizz" and keeps other numbers'],
    'def $f($a):\n    if $a % $k == 0:\n        return "fizz"\n    return $a',
    'Multiples of $k become the word "fizz", and every other number is returned unchanged.',
    [[12], [35], [22]], lambda n, k: "fizz" if n % k == 0 else n, k=ints(3, 15),
)  # fmt: skip
kind(
    "grade passed result_of exam", "points|score|value|x|marks|n",
    ['returns "pass" from $k points on and "fail" below', 'gives "pass" if a score is at least $k and else "fail"',
     'tells "pass" or "fail", where $k points are needed',
     'grades a score as "pass" when it reaches $k and "fail" otherwise'],
    'def $f($a):\n    if $a >= $k:\n        return "pass"\n    return "fail"',
    'A score of at least $k gives "pass", any lower score gives "fail".',
    [[0], [100], [50]], lambda n, k: "pass" if n >= k else "fail", k=ints(20, 90),
)  # fmt: skip
kind(
    "collatz_steps collatz steps_to_one hailstone", _ONE,
    ["counts the Collatz steps from a number to 1", "returns how many Collatz steps lead from a number to 1",
     "halves even numbers and maps odd ones to 3n + 1 until 1 is reached, and counts the steps",
     "computes the length of the Collatz path to 1"],
    "def $f($a):\n    steps = 0\n    while $a != 1:\n        if $a % 2 == 0:\n            $a //= 2\n        else:\n"
    "            $a = 3 * $a + 1\n        steps += 1\n    return steps",
    "Even numbers are halved, odd ones are tripled plus 1, and steps counts until $a is 1.",
    [[1], [2], [3], [6]], lambda n: {1: 0, 2: 1, 3: 7, 6: 8}[n],
)  # fmt: skip
kind(
    "power raise_to to_the_power pow_of", "base exponent|b e|x n|a n|number power",
    ["raises a number to a power with a loop", "computes a power by repeated multiplication",
     "multiplies a base by itself as often as the exponent says",
     "returns base to the exponent without the power operator"],
    "def $f($a, $b):\n    result = 1\n    for _ in range($b):\n        result *= $a\n    return result",
    "The loop multiplies result by $a once for each unit of $b.",
    [[2, 3], [5, 0], [3, 4]], lambda a, b: a**b,
)  # fmt: skip
