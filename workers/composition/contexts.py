"""Owns putting the preparation of turns together, with all that prompts are made of."""

from datetime import timedelta

from services.contexts.search import ContextSearch
from services.contexts.service import ContextService, PromptBudgets
from services.knowledge.search import KnowledgeSearch
from services.memories.search import MemorySearch
from services.prompts.base_prompts import BasePrompts
from services.tools.catalogue import ToolCatalogue
from services.turns.preparation import TurnPreparation, TurnRules
from workers.composition.foundation import Foundation


def make_preparation(foundation: Foundation, tools: ToolCatalogue) -> TurnPreparation:
    """Return what makes turns ready to run."""
    settings, database = foundation.settings, foundation.database
    search = ContextSearch(
        foundation.embedder,
        memories=MemorySearch(database, foundation.embedder),
        knowledge=KnowledgeSearch(database, foundation.embedder),
        timeout=timedelta(seconds=settings.context_wait_s),
    )
    budgets = PromptBudgets(
        prompt=settings.prompt_tokens, user=settings.user_tokens, context=settings.context_tokens
    )
    contexts = ContextService(BasePrompts(database), tools, search, budgets)
    rules = TurnRules(max_steps=settings.max_steps, fallback_model=settings.fallback_model)
    return TurnPreparation(database, foundation.events, contexts, rules)
