/** What a page loads when it first needs it: publishing, acknowledging, snapshots, members. */

export { follow } from './presence';
export { acknowledger, publisher } from './publish';
export { snapshot } from './snapshot';
