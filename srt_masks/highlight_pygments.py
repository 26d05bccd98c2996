"""The language for Pygments, and so for Sphinx, MkDocs, IPython and `pygmentize`. The package itself does without Pygments."""

from __future__ import annotations

from pygments.lexer import RegexLexer, bygroups
from pygments.token import Comment, Keyword, Name, Number, Operator, Punctuation, Whitespace

from .highlight import Kind, rules

TOKENS = {
    Kind.SPACE: Whitespace,
    Kind.COMMENT: Comment.Single,
    Kind.NUMBER: Number,
    Kind.STATEMENT: Keyword,
    Kind.CLAUSE: Keyword.Pseudo,
    Kind.OPERATOR_WORD: Operator.Word,
    Kind.OPERATOR: Operator,
    Kind.PUNCTUATION: Punctuation,
    Kind.CONSTANT: Keyword.Constant,
    Kind.SUBJECT: Name.Builtin.Pseudo,
    Kind.ATTRIBUTE: Name.Attribute,
    Kind.GLOBAL: Name.Variable.Global,
    Kind.FUNCTION: Name.Builtin,
    Kind.TYPE: Keyword.Type,
    Kind.AXIS: Name.Constant,
    Kind.DEFINED: Name.Function,
    Kind.NAME: Name,
}


class MaskLexer(RegexLexer):
    name = "srt_masks"
    # Pygments ships a lexer of another language called `mask`, for files of this name, too.
    aliases = ["srt-mask"]
    filenames = ["*.mask"]
    priority = 1.0
    tokens = {"root": [(r"\s+", Whitespace), *((rule.pattern, bygroups(*(TOKENS[kind] for kind in rule.kinds))) for rule in rules())]}
