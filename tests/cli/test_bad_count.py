"""How much is tried: the bad inputs of the tables, each into each command that reads it."""

import test_bad_files as files
import test_bad_notes as notes

TABLES = [
    (files.DAMAGED, files.OF_PICTURES),
    (files.NO_MASKS | files.SIZE | files.BROKEN, files.OF_MAPS),
    (files.NO_MASKS | files.BROKEN, files.OF_FOLDERS),
    (files.NO_CLASSES, files.OF_CLASSES),
    (files.NO_LISTS, files.OF_LISTS),
    (files.NO_XML, files.OF_XML),
    (files.NO_TABLES, [files.ADOPT]),
    (notes.ARCHIVES, ["data download"]),
    (notes.SETTINGS, ["train stage1"]),
    (notes.OPTIONS, [""]),
    (notes.ENVIRONMENTS, ["train stage1"]),
]


def test_hundreds_of_bad_inputs_are_tried():
    """And JSON files spoilt in every place besides: pytest ends with the number of all."""
    tried = sum(len(kinds) * len(commands) for kinds, commands in TABLES)
    commands = {word.split(" --")[0] for _, some in TABLES for word in some}
    assert tried >= 400 and len(commands) >= 12, (tried, commands)
