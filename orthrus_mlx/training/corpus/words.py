"""Word pools shared by the families: names, places, things with plurals, adjectives, scenery."""

FEMALE_NAMES = tuple(
    """Ada Agnes Aisha Alba Alice Alma Amara Amelia Amina Amy Ana Andrea Angela Anita Anja Anna Annika Astrid
    Aurora Ava Beatrice Bella Bianca Bridget Camila Carla Carmen Caroline Cecilia Celia Chiara Chloe Clara
    Claudia Cora Daisy Dalia Daniela Daria Diana Dora Edith Elena Elif Elisa Eliza Ella Elsa Emilia Emily Emma
    Erica Esther Eva Evelyn Fatima Fiona Flora Frances Freya Frida Gemma Gina Gloria Grace Greta Hana Hanna
    Harriet Hazel Heidi Helen Hilda Holly Ida Ilse Imani Ines Ingrid Irene Iris Isabel Ivy Jana Jane Jasmine
    Joan Johanna Josephine Joy Judith Julia June Karin Kate Katya Keiko Kira Klara Laila Lara Laura Layla Lea
    Lena Leonora Lia Lily Lina Linda Lisa Livia Lola Lotte Lucia Lucy Luna Lydia Mabel Magda Maia Mara
    Margaret Maria Marina Marta Martha Mary Matilda Maya Meera Mei Mila Milena Mina Mira Miriam Molly Monica
    Nadia Naomi Natalia Nell Nina Noor Nora Odette Olga Olive Olivia Paula Pauline Penny Petra Pia Polly Priya
    Rachel Ramona Rebecca Renata Rita Rosa Rose Ruby Ruth Sabina Sakura Salma Sara Selma Silvia Simone Sofia
    Sonia Stella Susan Sylvia Tamara Tanya Tara Teresa Thea Tilda Uma Ursula Valentina Vera Victoria Viola
    Wanda Wilma Yara Yasmin Yuki Yvonne Zara Zelda Zoe Zora""".split()
)

MALE_NAMES = tuple(
    """Aaron Abel Adam Ahmed Alan Albert Alec Alex Alfred Ali Amir Anders Andrew Anton Arjun Arthur Axel
    Basil Ben Benedict Bernard Bjorn Boris Bruno Carl Carlos Caspar Cedric Charles Christian Clement Colin
    Conrad Cyril Damian Daniel David Dennis Diego Dmitri Dominic Edgar Edmund Edward Eli Elias Emil Enzo Eric
    Ernest Ethan Eugene Felix Finn Floyd Francis Frank Fred Gabriel George Gerald Gilbert Giorgio Gordon
    Graham Gregor Gustav Hamid Hans Harold Harry Hassan Hector Henrik Henry Hiro Howard Hugo Ian Igor Ilya
    Isaac Ivan Jack Jacob Jakub James Jan Jasper Javier Jens Jerome Jim Joel John Jonas Jonathan Jorge Joseph
    Juan Jules Julian Kai Karl Kenji Kevin Klaus Kofi Lars Laurence Leo Leon Leonard Levi Liam Lorenzo Louis
    Lucas Luis Luke Magnus Malik Marcel Marco Marcus Mario Mark Martin Mateo Matthew Max Michael Miguel Milan
    Mohamed Morris Nathan Neil Nils Noah Norman Oliver Omar Oscar Oskar Otto Owen Pablo Pascal Patrick Paul
    Pavel Pedro Per Peter Philip Pierre Rafael Raj Ralph Ravi Raymond Rene Richard Robert Robin Roger Roland
    Roman Ronald Rudolf Rupert Sam Samir Samuel Sandro Sebastian Simon Stanley Stefan Stephen Sven Tarek Theo
    Thomas Tim Tobias Tom Tomas Udo Umar Uri Victor Viktor Vincent Walter Werner William Xavier Yusuf Yves
    Zane""".split()
)

FIRST_NAMES = FEMALE_NAMES + MALE_NAMES

SURNAMES = tuple(
    """Abbott Adler Ahmed Alvarez Andersen Archer Baker Barnes Becker Bell Bennett Berger Bishop Black Blake
    Bloom Brandt Brook Brown Burton Campbell Carter Castro Chen Clark Cohen Cole Cooper Costa Cruz Dahl Dalton
    Davies Diaz Dixon Dubois Duncan Eaton Ellis Evans Farmer Fischer Fisher Fletcher Flores Ford Foster Fox
    Franke Frost Garcia Gibson Gomez Grant Gray Green Greene Gupta Haas Hale Hall Hansen Hardy Harper Hart
    Hayes Herrera Hoffman Holm Holt Hughes Hunt Ibrahim Ito Jansen Jensen Johnson Jones Joshi Kaur Keller
    Kelly Khan Kim King Klein Knight Kovacs Kowalski Kumar Lane Larsen Laurent Lee Lehmann Lewis Lindberg Lopez
    Marin Marsh Martinez Mason Meyer Miller Mills Moore Morales Moreau Moretti Morgan Murphy Nagy Nakamura
    Nash Nguyen Nielsen Noble Novak Nunez Okafor Olsen Osei Owens Palmer Park Parker Patel Pereira Perez Petrov
    Porter Price Quinn Ramos Reed Reyes Rice Richter Rivera Roberts Rossi Roth Rowe Russo Ryan Saito Santos
    Sato Schmidt Schneider Sharma Shaw Silva Simmons Singh Sloan Smith Soto Stone Sutton Suzuki Swan Takeda
    Tanaka Taylor Torres Turner Vargas Vega Vogel Wagner Walker Wallace Wang Ward Watson Weber Webb West White
    Winter Wolf Wood Wright Wu Yamada York Young Zhang Zimmer""".split()
)

TOWNS = tuple(
    """Aarhus Accra Adelaide Agadir Amsterdam Antwerp Athens Auckland Austin Avignon Baltimore Bangkok Barcelona
    Basel Bath Belfast Bergen Berlin Bern Bilbao Bologna Bordeaux Boston Bremen Bruges Brussels Bucharest
    Budapest Cairo Calgary Cardiff Chester Chicago Cologne Copenhagen Cordoba Cork Dakar Dallas Delft Denver
    Dresden Dublin Durban Edinburgh Florence Geneva Genoa Ghent Glasgow Granada Graz Hamburg Hanoi Havana
    Helsinki Houston Istanbul Kyoto Lagos Leeds Leipzig Lima Lisbon Liverpool London Lucerne Lyon Madrid Malmo
    Manchester Marseille Melbourne Milan Montreal Munich Nairobi Nantes Naples Nice Odense Osaka Oslo Ottawa
    Oxford Palermo Paris Perth Phoenix Pisa Porto Portland Prague Quito Riga Rome Rotterdam Salzburg Santiago
    Seattle Seoul Seville Sofia Split Stockholm Sydney Tallinn Tampere Tokyo Toronto Toulouse Trieste Turin
    Turku Utrecht Valencia Vancouver Venice Verona Vienna Vilnius Warsaw Wellington York Zagreb Zurich""".split()
)

VILLAGES = tuple(
    """Alderbrook Ashford Applewick Barley Bellmere Birchfield Blackwater Bramble Briarwood Brookside Cedarholm
    Clearwater Cloverfield Coldspring Copperhill Cranmoor Dovedale Eastmarsh Elmstead Fairhaven Fernhill
    Foxglove Glenmoor Goldcrest Greenhollow Greyport Harrowgate Hazelwood Highmoor Hollybrook Ironbridge
    Ivydale Juniper Kingsferry Lakeview Larkspur Lindenhof Longmeadow Maplewood Marigold Millbrook Moonhaven
    Mossbank Northwick Oakhurst Oldport Orchardton Otterburn Pinecrest Primrose Quarryton Ravenhill Redcliff
    Riverbend Rosedale Rowanbury Saltmarsh Sandbay Seaford Silverton Stonebridge Summerfield Sunnydale Swanley
    Thornbury Tidewater Underhill Valebrook Westcombe Whitecliff Willowdale Windmere Woodford Wrenfield""".split()
)

STREETS = tuple(
    """Acorn Ash Baker Bank Beech Bridge Canal Castle Cedar Chapel Cherry Church Clover Corn Elm Fern Field
    Forest Garden Gate Glen Grove Harbour Hazel High Hill Ivy King Lake Laurel Lime Lion Maple Market Meadow
    Mill Moss North Oak Orchard Park Pearl Pine Pond Poplar Queen River Rose Sand School Shell Silver South
    Spring Station Stone Summer Temple Valley Violet Walnut Water West Willow Windmill""".split()
)
STREET_KINDS = ("Street", "Road", "Lane", "Avenue", "Way", "Square")

COUNTRIES = tuple(
    """Argentina Australia Austria Belgium Brazil Canada Chile China Croatia Denmark Egypt Estonia Finland France
    Germany Ghana Greece Hungary Iceland India Ireland Italy Japan Kenya Latvia Mexico Morocco Nepal Norway Peru
    Poland Portugal Romania Senegal Serbia Slovenia Spain Sweden Switzerland Thailand Tunisia Turkey Uruguay
    Vietnam""".split()
)

# Singular and plural of countable things; what can be bought, shared, collected.
_THINGS = """apple apples|orange oranges|pear pears|plum plums|lemon lemons|peach peaches|banana bananas|
melon melons|carrot carrots|onion onions|potato potatoes|tomato tomatoes|cookie cookies|muffin muffins|
pancake pancakes|sandwich sandwiches|bagel bagels|waffle waffles|cake cakes|candle candles|pencil pencils|
pen pens|eraser erasers|ruler rulers|notebook notebooks|book books|card cards|stamp stamps|envelope envelopes|
sticker stickers|marble marbles|balloon balloons|button buttons|bead beads|shell shells|coin coins|stone stones|
leaf leaves|flower flowers|rose roses|tulip tulips|tree trees|seed seeds|nut nuts|egg eggs|cup cups|plate plates|
bowl bowls|spoon spoons|fork forks|bottle bottles|jar jars|box boxes|bag bags|basket baskets|bucket buckets|
chair chairs|table tables|lamp lamps|mirror mirrors|clock clocks|pillow pillows|blanket blankets|towel towels|
brush brushes|comb combs|hat hats|scarf scarves|glove gloves|sock socks|shirt shirts|coat coats|boot boots|
belt belts|ring rings|toy toys|doll dolls|puzzle puzzles|kite kites|ball balls|bike bikes|drum drums|
flute flutes|ticket tickets|poster posters|map maps|key keys|rope ropes|nail nails|screw screws|brick bricks|
tile tiles|bulb bulbs|battery batteries|cable cables|magnet magnets|ribbon ribbons|bracelet bracelets|
necklace necklaces|photo photos|magazine magazines|folder folders|marker markers|crayon crayons|
lantern lanterns|mug mugs|teapot teapots|napkin napkins|tent tents|whistle whistles|badge badges|
postcard postcards|sweater sweaters|cherry cherries|grape grapes|mango mangoes|pretzel pretzels|
pie pies|turnip turnips|pumpkin pumpkins|cabbage cabbages|pepper peppers|radish radishes"""
SINGULAR = {pair.split()[1]: pair.split()[0] for pair in _THINGS.replace("\n", "").split("|")}
ITEMS = tuple(SINGULAR)
GOODS = tuple(item for item in ITEMS if item not in ("coins", "leaves", "stones", "trees", "tables"))

CURRENCIES = ("dollars", "euros", "pounds", "coins", "francs", "pesos")

COLOURS = (
    "red", "blue", "green", "yellow", "black", "white", "brown", "orange", "purple", "pink", "grey", "silver",
    "golden", "turquoise", "crimson", "beige", "violet", "ivory",
)  # fmt: skip

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
    "November", "December",
)  # fmt: skip
MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

SHORT_WORDS = tuple(
    """apple arrow bacon badge baker banana basket beach bean berry bird blanket boat book bottle bread bridge
    brush bucket butter button cable camel candle carpet carrot castle cat chair cheese cherry circle clock cloud
    coffee copper cotton cousin cradle dinner doctor dog dragon drum eagle engine falcon farmer feather fence
    finger fish flower forest fork fox garden ginger glass glove goose grape green guitar hammer harbour hat
    honey horse house island jacket jelly kettle kitten ladder lamp leaf lemon letter lion lizard mango maple
    marble market melon mirror mitten monkey moon mountain mouse needle nest night ocean olive onion orange
    otter oven owl paper parrot pear pebble pencil pepper piano pillow planet plate pocket pond potato puzzle
    rabbit radio rain ribbon river robin rocket rose saddle sailor salad school shadow sheep ship silver sister
    snow soap sock spider spoon star stone storm street sugar summer sun table tea temple tiger toast tomato
    tower train tree trumpet tulip tunnel turtle valley velvet violin wagon walnut water whale wheel willow
    window winter wolf yellow zebra""".split()
)

ANIMALS = tuple(
    """badger bear beaver cat crow deer dog dolphin donkey dragonfly duck eagle fox frog goat goose hamster hare
    hawk hedgehog heron horse kitten lamb lizard lynx magpie mole mouse otter owl panda parrot penguin pigeon
    pony puppy rabbit raccoon raven robin salamander seal sheep snail sparrow squirrel stork swan tiger toad
    tortoise turtle weasel whale wolf woodpecker wren""".split()
)


def article(noun: str) -> str:
    """`noun` with its indefinite article; the pools hold no word like *hour* or *unit*."""
    return f"{'an' if noun[0] in 'aeiouAEIOU' else 'a'} {noun}"


def count(number: int, plural: str) -> str:
    """A number with its unit, singular after 1; `plural` may be a unit or an item of the pools."""
    if number != 1:
        return f"{number} {plural}"
    return f"1 {SINGULAR.get(plural) or _SINGULAR_UNITS.get(plural, plural)}"


_SINGULAR_UNITS = {
    **{"dollars": "dollar", "euros": "euro", "pounds": "pound", "coins": "coin", "francs": "franc"},
    **{"pesos": "peso", "hours": "hour", "minutes": "minute", "seconds": "second", "days": "day"},
    **{"weeks": "week", "months": "month", "years": "year", "pages": "page", "rows": "row"},
    **{"letters": "letter", "boxes": "box", "tables": "table", "people": "person", "children": "child"},
    **{"inches": "inch", "feet": "foot", "dozens": "dozen", "tiles": "tile", "vowels": "vowel"},
}
