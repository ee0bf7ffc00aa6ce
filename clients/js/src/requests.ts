/** What a page loads when it first needs it: publishing, acknowledging, snapshots, members. */

export { follow } from './presence.js';
export { acknowledger, publisher } from './publish.js';
export { snapshot } from './snapshot.js';
