/* list.h: an intrusive doubly linked list; a node is in one list at most; an unlinked node points to itself.
 */
#ifndef CISTERN_COMMON_LIST_H
#define CISTERN_COMMON_LIST_H

#include "common/base.h"

struct list {
    struct list *prev, *next;
};

static inline void list_init(struct list *l)
{
    l->prev = l->next = l;
}
static inline bool list_empty(const struct list *l)
{
    return l->next == l;
}
/* A node that was list_init'ed and is in no list. */
static inline bool list_unlinked(const struct list *n)
{
    return n->next == n;
}
static inline void list_insert_before(struct list *pos, struct list *n)
{
    n->prev = pos->prev;
    n->next = pos;
    pos->prev->next = n;
    pos->prev = n;
}
static inline void list_push_back(struct list *l, struct list *n)
{
    list_insert_before(l, n);
}
static inline void list_push_front(struct list *l, struct list *n)
{
    list_insert_before(l->next, n);
}
/* Safe on an unlinked node. */
static inline void list_remove(struct list *n)
{
    n->prev->next = n->next;
    n->next->prev = n->prev;
    list_init(n);
}
static inline struct list *list_pop_front(struct list *l)
{
    struct list *n = l->next;
    if (n == l)
        return NULL;
    list_remove(n);
    return n;
}
/* Moves all of src to the end of dst; src is empty afterwards. */
static inline void list_splice(struct list *dst, struct list *src)
{
    if (list_empty(src))
        return;
    src->next->prev = dst->prev;
    dst->prev->next = src->next;
    src->prev->next = dst;
    dst->prev = src->prev;
    list_init(src);
}
#define list_entry(n, type, member) container_of(n, type, member)
#define list_for_each(n, l)         for (struct list *n = (l)->next; n != (l); n = n->next)
/* The body may remove n (and only n). */
#define list_for_each_safe(n, l)                                                                             \
    for (struct list *n = (l)->next, *n##_next = n->next; n != (l); n = n##_next, n##_next = n->next)

#endif
