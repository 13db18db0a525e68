"""Licences are read from the heads of files, and only those allowed are kept."""

import pytest

from llm.document import Document
from llm.stages import licence

MIT = """# Permission is hereby granted, free of charge, to any person obtaining a copy
# of this software and associated documentation files (the "Software"), to deal
# in the Software without restriction."""
APACHE = """/*
 * Licensed under the Apache License, Version 2.0 (the "License");
 * you may not use this file except in compliance with the License.
 */"""
BSD = """// Redistribution and use in source and binary forms, with or without
// modification, are permitted provided that the following conditions are met:
// 1. Redistributions of source code must retain the above copyright notice."""
GPL = """;; This program is free software: you can redistribute it and/or modify
;; it under the terms of the GNU General Public License as published by
;; the Free Software Foundation, either version 3 of the License, or
;; (at your option) any later version."""
HEADS = {
    "": [],
    "x = 1": [],
    "# This module needs a licence key to run.": [],
    "# See LICENSE for details.": [],
    "# SPDX-License-Identifier: MIT": ["MIT"],
    "/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note OR MIT) */": [
        "(GPL-2.0 WITH Linux-syscall-note OR MIT)"
    ],
    "<!-- SPDX-License-Identifier: Apache-2.0 -->": ["Apache-2.0"],
    "// SPDX-License-Identifier: MIT\n// SPDX-License-Identifier: GPL-2.0-only": [
        "MIT", "GPL-2.0-only"
    ],
    MIT: ["MIT"],
    "# Released under the MIT License.": ["MIT"],
    APACHE: ["Apache-2.0"],
    BSD: ["BSD-2-Clause"],
    BSD + "\n// Neither the name of X nor the names of": ["BSD-3-Clause"],
    BSD + "\n// 3. All advertising materials mentioning features": ["BSD-4-Clause"],
    GPL: ["GPL-3.0-or-later"],
    " * under the terms of the GNU General Public License version 2\n * as published": [
        "GPL-2.0-only"
    ],
    "! the GNU Lesser General Public\n! License as published; either version 2.1\n"
    "! of the License, or (at your option) any later version.": ["LGPL-2.1-or-later"],
    "-- GNU AFFERO GENERAL PUBLIC LICENSE\n--   Version 3, 19 November 2007": [
        "AGPL-3.0-only"
    ],
    "# This Source Code Form is subject to the terms of the Mozilla Public\n"
    "# License, v. 2.0.": ["MPL-2.0"],
    "# Licensed to PSF under a Contributor Agreement.": ["PSF-2.0"],
    "// Permission to use, copy, modify, and/or distribute this software for any\n"
    "// purpose with or without fee is hereby granted, provided that": ["ISC"],
    "// Distributed under the Boost Software License, Version 1.0.": ["BSL-1.0"],
    "// This is free and unencumbered software released into the public domain.": [
        "Unlicense"
    ],
    "# All rights reserved. Proprietary and confidential. No license is given.": [
        "LicenseRef-Proprietary"
    ],
    APACHE + "\n" + GPL: ["Apache-2.0", "GPL-3.0-or-later"],
}  # fmt: skip


def document(text, **meta):
    return Document("x.py", text, "s", "g", "code", len(text), meta)


@pytest.mark.parametrize("head", HEADS)
def test_heads(head):
    for text in (head, "#!/bin/sh\n" + head + "\n\nimport os\n" * 50):
        assert list(licence.score(document(text))) == HEADS[head]


@pytest.mark.parametrize(
    ("expression", "held"),
    [
        ("MIT", True), ("mit", True), ("GPL-3.0-only", False), ("MIT OR GPL-3.0", True),
        ("MIT AND GPL-3.0", False), ("(MIT OR GPL-3.0) AND ISC", True),
        ("MIT OR GPL-3.0 AND AGPL-3.0", True), ("GPL-3.0 OR (MIT AND LGPL-2.1)", False),
        ("Apache-2.0 WITH LLVM-exception", True), ("GPL-2.0 WITH X OR MIT", True),
        ("", False), ("(", False), ("MIT ISC", False), ("OR", False),
    ],
)  # fmt: skip
def test_expressions(expression, held):
    reason = licence.make().decide({expression: 1.0})
    assert (reason == "") == held


def test_decisions():
    stage = licence.make()
    assert stage.decide({}) == "no licence named"
    assert stage.decide({"MIT": 1.0, "GPL-2.0-only": 1.0}) == "licence GPL-2.0-only"
    assert licence.make(unknown=True).decide({}) == ""
    assert licence.make(allow=("GPL-2.0-only",)).decide({"GPL-2.0-only": 1.0}) == ""
    assert licence.make(allow=("GPL-2.0-only",)).decide({"MIT": 1.0}) == "licence MIT"


def test_what_the_source_says_comes_first():
    assert licence.score(document(GPL, licence="MIT")) == {"MIT": 1.0}
    assert licence.score(document(GPL, license=["MIT", "ISC"])) == {"MIT": 1, "ISC": 1}
    assert list(licence.score(document(MIT, licence=""))) == ["MIT"]


def test_only_the_beginning_is_read():
    text = "x = 1\n" * 2000 + "# SPDX-License-Identifier: MIT\n"
    assert licence.score(document(text)) == {}
    assert licence.score(document(text), characters=20_000) == {"MIT": 1.0}
