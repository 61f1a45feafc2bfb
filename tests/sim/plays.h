/* plays.h: scenes that were written to make one planted bug hurt (docs/testing.md); see scenes.h. primary:
 * the process of the module where the moment was; member: of another one that it is about. */
#ifndef CISTERN_TESTS_SIM_PLAYS_H
#define CISTERN_TESTS_SIM_PLAYS_H

struct sim_cluster;
void sim_play_deaf(struct sim_cluster *c, unsigned primary, unsigned member);
void sim_play_late_forward(struct sim_cluster *c, unsigned primary, unsigned member);
void sim_play_pull(struct sim_cluster *c, unsigned primary, unsigned member);
void sim_play_outlived(struct sim_cluster *c, unsigned primary, unsigned member);
void sim_play_old_report(struct sim_cluster *c, unsigned primary, unsigned member);

#endif
