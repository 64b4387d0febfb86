"""Slot groups of the prose grammar: people, settings, things, qualities, manners and what happens."""

from __future__ import annotations

# What a thing can be.
ADJECTIVES = tuple(
    """ancient amber antique battered beautiful bent big black blue brass broken broad bronze brown carved
    cheap clean coloured common copper cracked cream crimson crooked crystal curious curved damp dark dented
    delicate dirty dusty elegant embroidered empty enchanted engraved enormous expensive faded fancy
    feathered fine flat foreign forgotten fragile gilded gleaming glittering golden graceful green grey
    hand-painted handmade handsome heavy hollow huge iron ivory jewelled knitted large leather light little
    long lost lovely marble mended metal mysterious narrow neat new nickel odd old orange ornate oval
    painted pale paper patched perfect pink plain polished precious pretty printed purple ragged rare red
    repaired ripped rough round royal rusty scarlet scratched secret shabby shiny short silver simple
    slender small smooth soft solid spare splendid spotted square stained strange striped strong sturdy tall
    tarnished tattered thick thin tin tiny torn turquoise twisted unusual valuable velvet violet wet white
    wide wonderful wooden woollen worn woven yellow""".split()
)

# How a surface looks, and how it feels.
LOOKS = tuple(
    """beautiful black blank bright brown clean cloudy colourful dark delicate dull dusty elegant faded faint
    fine fragile fresh gleaming golden graceful green grey heavy light mysterious modest new old ordinary
    pale plain polished pretty proper red royal rusty scratched shabby shiny silvery simple solid spotless
    spotted strange sturdy tidy tiny unusual valuable warm white worn yellow""".split()
)
TOUCHES = tuple(
    """cold cool crisp damp dry dusty firm gritty hard hot icy light rough sandy silky slippery smooth soft
    solid sticky stiff thick thin uneven warm waxy wet""".split()
)

# What can be said of a place, its streets, its light.
MOODS = tuple(
    """ancient beautiful bright busy calm charming cheerful clean cold colourful cosy crooked dark dusty empty
    foggy friendly gloomy green grey handsome lively lonely lovely misty modest muddy narrow old orderly
    peaceful plain pleasant poor pretty proud quiet rich rough shady silent sleepy small snowy steep strange
    sunny tidy tiny warm welcoming wet wide wild windy""".split()
)

TRAITS = tuple(
    """absent-minded adventurous ambitious bashful bold bookish brave broad-minded calm careful cautious
    charming cheerful clever clumsy curious daring determined devoted dignified diligent dreamy eager
    earnest energetic faithful fair-minded fearless forgetful friendly funny generous gentle grumpy happy
    hard-working helpful hopeful imaginative impatient kind lively likeable long-suffering lonely loyal
    lucky mischievous modest nervous old-fashioned optimistic organised patient playful polite practical
    proud quick quiet reliable restless sensible serious shy silent sleepy stubborn talkative thoughtful
    tidy timid tireless truthful warm-hearted wise witty well-read well-meaning wide-eyed wry young-looking
    zealous""".split()
)

ROLES = tuple(
    """actor apprentice archaeologist artist astronomer baker barber beekeeper blacksmith boatman bookbinder
    botanist brewer bricklayer builder butcher captain carpenter cartographer chemist clerk clockmaker
    cobbler collector composer conductor cook dancer dentist detective diver doctor dressmaker driver editor
    engineer explorer farmer ferryman fiddler fisherman florist forester fortune-teller gardener geologist
    glassblower goldsmith grocer guide harbourmaster hatter herbalist hermit historian hunter illustrator
    innkeeper inventor janitor jeweller journalist judge juggler knight librarian lighthouse-keeper
    locksmith magician mapmaker mason mechanic merchant messenger midwife miller milliner miner musician
    nurse nurseryman painter pastry-cook pharmacist photographer pianist pilot plumber poet porter postman
    potter printer publisher puppeteer ranger roofer sailor saddler scholar scientist sculptor secretary
    shepherd shipbuilder shopkeeper singer smith stationmaster stonecutter storyteller student surgeon
    surveyor swimmer tailor tanner teacher thatcher toymaker translator traveller trumpeter typist vet
    violinist waiter watchmaker weaver woodcarver woodcutter writer""".split()
)

PLACES = tuple(
    line.strip()
    for line in """
    a cottage at the edge of the forest; a narrow house by the canal; a farmhouse behind the hills
    a lighthouse on the cliff
    a village in the valley; a flat above the bakery; a cabin near the lake; an old mill by the river
    a tower in the middle of the town; a tent beside the road; a boat in the harbour; a castle without a roof
    a hut in the mountains; a house with green shutters; a room under the attic; a street full of shops
    a garden behind a stone wall; a barn beside the orchard; a hut on a small island; a caravan near the beach
    a quiet street; a busy market town; a house on the corner; a tall house with seven windows
    a monastery on the hill; a windmill in the fields; an inn at the crossroads; a shed at the end of the garden
    a town by the sea; a hut on the moor; a palace with a hundred rooms; a workshop behind the church
    a house between two rivers; a row of red houses; a bookshop near the station; a school at the end of the lane
    a hotel by the railway; a glass house full of plants; a cellar below the theatre; a cave above the waterfall
    a hamlet on the border; a fishing village; a cabin in the plains; a kingdom beyond the mountains
    a camp at the foot of the volcano; a city of bridges; a house made of driftwood; a chapel on a rock
    a wagon in the desert; a treehouse in the old oak; a hall beside the palace; a farmhouse with a blue door
    an old ship in the port; a library in the old town; a house at a bend of the river; a hut in a clearing
    a shop between the bank and the bakery; a tunnel under the hill; a valley without a road; a suburb of the capital
    """.replace("\n", ";").split(";")
    if line.strip()
)

# Where something small can be found, lost or kept.
SPOTS = tuple(
    line.strip()
    for line in """
    under the bridge; behind the church; in the attic; at the market; near the fountain; beside the stove; in the garden
    on the beach; at the station; between two stones; below the stairs; on top of the hill; under an apple tree
    at the end of the street; in the library; by the well; near the old mill; inside a hollow tree; at the crossroads
    in the kitchen; on the roof; behind the curtain; beside the road; in the middle of the square; at the harbour
    on the windowsill; under the bed; at the foot of the tower; in the tall grass; near the gate
    on a bench in the park; on the old pier; in the back of the shop; at the edge of the pond; in an empty room
    behind the barn; on the shore of the lake; in the corner of the yard; under a loose board; on the last train
    in the shade of a wall; beside the campfire; next to the bookshelf; in the cellar; next to the post office
    across the river; in front of the theatre; on the narrow path; at the top of the stairs; in the tower room
    """.replace("\n", ";").split(";")
    if line.strip()
)

# Where people meet or stay for a while.
MEETING_PLACES = tuple(
    line.strip()
    for line in """
    at the market; near the fountain; in the garden; on the beach; at the station; on top of the hill; at the harbour
    under the lime trees; in the library; by the well; near the old mill; at the crossroads; in the middle of the square
    on a bench in the park; on the old pier; in the bakery; by the pond; beside the campfire; in front of the theatre
    on the bridge; in the churchyard; at the inn; in front of the school; by the river; outside the post office
    in the orchard; in the shade of a wall; around a big table; at the tram stop; under the arches
    """.replace("\n", ";").split(";")
    if line.strip()
)

# What a town puts up in its middle.
LANDMARKS = tuple(
    line.strip()
    for line in """
    a fountain; a statue of a lion; an old oak; a clock tower; a stone well; a statue of a sailor; a market hall
    a wooden stage; a bell tower; a sundial; a broken column; a round chapel; a statue of a queen; a lime tree
    a stone bench; a bronze horse; a small pond; a bandstand; a signpost with twelve arms; a maypole
    """.replace("\n", ";").split(";")
    if line.strip()
)

OBJECTS = tuple(
    """acorn album almanac anchor apron armchair atlas axe bag ball banner barrel basin basket bell bench
    bicycle blanket book boot bottle bowl box bracelet brooch broom brush bucket buckle button cage camera
    candle cane canoe cap cape card carpet carriage cart casket chain chair chalk chest clock cloak coat
    coin comb compass cradle crate crown crystal cup curtain cushion dagger diary dish doll door drawing
    drum easel feather fiddle figurine fan flag flask flute fork frame funnel globe glove goblet guitar
    hammer hammock harp hat helmet horn horseshoe hourglass jacket jar jewel journal jug kettle key kite
    knife ladder lamp lantern leaf ledger lens letter lock locket lute map mask medal mirror mitten monocle
    mug necklace needle net newspaper notebook oar painting pan parcel pebble pencil pendant photograph
    piano picture pillow pipe plate pot postcard puppet purse puzzle quill quilt rake ribbon ring robe
    rocket rope ruler sack saddle sail scale scarf scroll seed shawl shell shield shoe shovel sketch sled
    snowman spade spoon stamp statue stool suitcase sundial sword table tapestry teapot telescope tent
    thimble thread ticket tile tin torch toy trumpet trunk umbrella vase veil violin wagon wallet watch
    wheel whistle wreath""".split()
)

WEATHER = tuple(
    line.strip()
    for line in """
    the rain had just stopped; a cold wind came from the sea; the sun was already low; snow lay on every roof
    the air smelled of wet leaves; thick fog covered the fields; it was the hottest day of the year
    clouds hung over the hills
    a storm was on its way; the sky was clear and pale; the first frost had come; a warm breeze moved the curtains
    the streets were still wet; thunder rolled in the distance; the moon stood above the chimneys
    it had rained for three days
    the evening was mild; the light was soft and grey; leaves danced across the square; the river was frozen
    the stars were bright; the wind had turned to the north; a rainbow stood over the lake; the morning was quiet
    dew shone on the grass; the sea was as smooth as glass; dust lay over the road; the last snow was melting
    drops ran down the window; the birds were unusually silent; the sun burned through the mist
    hail drummed on the roof
    """.replace("\n", ";").split(";")
    if line.strip()
)

TIMES = tuple(
    line.strip()
    for line in """
    one morning; one evening; one night; late in autumn; early in spring; on a Sunday; on the first day of summer
    in the middle of winter; just before dawn; shortly after noon; one windy day; on market day; at the end of May
    one Tuesday; at midnight; a week before the festival; on the longest day of the year; after a long winter
    in the last days of October; one rainy afternoon; when the bells rang; before the harvest; on a quiet Thursday
    at sunset; during the holidays; one day in March; on the way home; after supper; the day after the wedding
    on the night of the full moon; one cold January morning; at the start of the school year
    in the hour before breakfast
    """.replace("\n", ";").split(";")
    if line.strip()
)

FEELINGS = tuple(
    """alarmed amazed amused angry annoyed anxious ashamed astonished bewildered bored calm cheerful comforted
    confused content curious dazzled delighted determined disappointed doubtful embarrassed encouraged
    excited exhausted frightened glad grateful happy homesick hopeful heartbroken impatient inspired
    irritated jealous lonely melancholy merry moved nervous pleased proud puzzled relieved restless sad
    satisfied shy sorry speechless stunned surprised thankful tempted tired touched troubled uneasy unhappy
    upset worried""".split()
)

MANNERS = tuple(
    """absently abruptly anxiously boldly bravely briefly brightly calmly carefully cautiously cheerfully
    clumsily coldly cleverly curiously eagerly earnestly easily effortlessly faithfully firmly gently gladly
    gracefully gratefully gravely happily hastily hopefully impatiently keenly kindly lazily lovingly loudly
    merrily neatly nervously patiently playfully politely proudly quickly quietly readily reluctantly
    rapidly sadly secretly seriously sharply shyly silently slowly smoothly softly solemnly steadily stiffly
    suddenly thoughtfully timidly tenderly swiftly tirelessly warily warmly wearily willingly wisely""".split()
)

# Verb phrases in the past tense; {o} is an object with its adjective and article, {p} a spot.
ACTIONS = tuple(
    line.strip()
    for line in """
    found {o} {p}; lost {o} {p}; discovered {o} {p}; hid {o} {p}; noticed {o} {p}; dropped {o} {p}; picked up {o} {p}
    opened the door and saw {o}; bought {o} from a stranger; sold {o} to a traveller; repaired {o} without any help
    drew a picture of {o}; dreamed about {o}; heard a voice {p}; met an old friend {p}; waited {p} for an hour
    carried {o} all the way home; wrapped {o} in paper; painted {o} in bright colours; cleaned {o} until it shone
    fell asleep {p}; sat down {p} and began to think; looked for {o} {p}; left {o} {p}; buried {o} {p}
    received {o} as a present; borrowed {o} from a neighbour; traded a coat for {o}; broke {o} by accident
    saw a light {p}; wrote a letter {p}; told everyone about {o}; kept {o} as a secret; built {o} from old boards
    walked past {o} and stopped; asked a stranger about {o}; put {o} on the table; followed a fox through the fields
    counted the steps {p}; listened to the wind {p}; made tea and looked at {o}; tied {o} to a string
    remembered {o} from childhood; found a note {p}; woke up {p}; sang a song {p}
    gave {o} to the first child in the street
    watched the birds {p}; lit a candle {p}; dug a hole {p}; stumbled over {o} {p}; mended {o} with great care
    shared bread with a stranger {p}; read the same page twice {p}; took {o} from the shelf; threw {o} into the river
    polished {o} the whole evening; saw {o} in a shop window; kept {o} warm under a coat; lost the way {p}
    """.replace("\n", ";").split(";")
    if line.strip()
)

ENDINGS = tuple(
    line.strip()
    for line in """
    From that day on, nothing was quite the same.; In the end, everyone went home with a smile.
    Nobody ever spoke of it again.; And so the long day came to an end.; It was the best day of the whole year.
    After that, the two of them met every week.; Some secrets are better kept, and this was one of them.
    The next morning, the sun shone as if nothing had happened.; People in the town still tell this story.
    It was a small thing, but it was enough.; That night, there was a light in every window.
    The lesson was simple: it pays to look twice.; Later there was soup, and all was forgiven.
    To this day, the place has kept its name.; And that is how the old bell came back to the town.
    Everything was quiet again, and the river went on as before.; Sometimes a good friend is all that is needed.
    In the morning only a few footprints were left.; It was time to go, but the memory stayed.
    The answer had been there all along.; The promise was kept, although it took many years.
    Nobody was richer than before, but everybody was happier.; It had been worth the long way.
    The clock struck twelve, and the street was empty.; The door stayed open from then on.
    """.replace("\n", ";").split(";")
    if line.strip()
)
